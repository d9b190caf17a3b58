"""Losses: pure functions from the log-probabilities of a batch of pairs to one value per pair. Needs torch only."""

from ._loss import Loss as Loss
from ._loss import WeightedSum as WeightedSum
from ._pairs import PairLogps as PairLogps
from ._pairwise import DPO as DPO
from ._registry import loss_names as loss_names
from ._registry import register_loss as register_loss
from ._sft import SFT as SFT
from ._wrappers import Robust as Robust
from ._wrappers import Smoothed as Smoothed
