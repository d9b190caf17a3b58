"""Pairs: reading, checking before any weights load, and injecting label noise with a known truth."""

from __future__ import annotations

from ._agreement import HIGHEST_RATE as HIGHEST_RATE
from ._agreement import Agreement as Agreement
from ._agreement import from_repeats as from_repeats
from ._bins import best_fit as best_fit
from ._bins import best_fit_padded as best_fit_padded
from ._bins import split_up as split_up
from ._check import OnBadPairs as OnBadPairs
from ._check import check_pairs as check_pairs
from ._check import drop_bad as drop_bad
from ._check import sample_tokens as sample_tokens
from ._estimate import Estimate as Estimate
from ._estimate import ModelShape as ModelShape
from ._estimate import Way as Way
from ._estimate import estimate as estimate
from ._load import load_pairs as load_pairs
from ._noise import FlipMode as FlipMode
from ._noise import flip_labels as flip_labels
from ._report import DataReport as DataReport
from ._report import Finding as Finding
from ._report import Lengths as Lengths
from ._sizes import SAMPLE as SAMPLE
from ._sizes import Division as Division
from ._sizes import PairSizes as PairSizes
from ._sizes import pair_sizes as pair_sizes
from ._weights import pair_weights as pair_weights
