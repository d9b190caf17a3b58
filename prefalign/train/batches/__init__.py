"""Batches by a budget of tokens, and the weights of their rows."""

from ._by_tokens import TokenBatches as TokenBatches
from ._by_tokens import check_token_batches as check_token_batches
from ._scored import MARKS as MARKS
from ._scored import Marking as Marking
from ._scored import ScoredCollator as ScoredCollator
from ._scored import check_scored as check_scored
from ._weights import PairWeights as PairWeights
from ._weights import read_weights as read_weights
