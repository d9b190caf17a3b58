"""The losses of a pair, each a closed form."""

from ._margin import DPO as DPO
