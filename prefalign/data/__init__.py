"""Pairs: reading, checking before any weights load, and injecting label noise with a known truth."""

from __future__ import annotations

from ._check import OnBadPairs as OnBadPairs
from ._check import check_pairs as check_pairs
from ._check import drop_bad as drop_bad
from ._load import load_pairs as load_pairs
from ._noise import FlipMode as FlipMode
from ._noise import flip_labels as flip_labels
from ._report import DataReport as DataReport
from ._report import Finding as Finding
from ._report import Lengths as Lengths
