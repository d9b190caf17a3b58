"""The losses of a pair, each a closed form."""

from ._divergences import FDivergence as FDivergence
from ._divergences import Kind as Kind
from ._margin import DPO as DPO
from ._sft import SFT as SFT
from ._slic import RankHinge as RankHinge
from ._tokenwise import LD as LD
from ._tokenwise import WPO as WPO
