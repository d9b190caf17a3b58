"""Pairs: reading, checking before any weights load, and injecting label noise with a known truth."""

from __future__ import annotations

from ._groups import groups_of as groups_of
from ._groups import pairs_of as pairs_of
from ._noise import FlipMode as FlipMode
from ._noise import flip_labels as flip_labels
from ._scored import SIDES as SIDES
from ._scored import STEPS as STEPS
from ._scored import WEIGHTS as WEIGHTS
from ._scored import Score as Score
from ._scored import Scorer as Scorer
from ._scored import check_score as check_score
from ._scored import scored_pair as scored_pair
from ._show import Shown as Shown
from ._show import as_html as as_html
from ._show import as_text as as_text
from ._show import show_pairs as show_pairs
from ._weights import pair_weights as pair_weights
from .budget._bins import best_fit as best_fit
from .budget._bins import best_fit_padded as best_fit_padded
from .budget._bins import split_up as split_up
from .budget._estimate import Estimate as Estimate
from .budget._estimate import ModelShape as ModelShape
from .budget._estimate import Way as Way
from .budget._estimate import estimate as estimate
from .budget._sizes import SAMPLE as SAMPLE
from .budget._sizes import Division as Division
from .budget._sizes import PairSizes as PairSizes
from .budget._sizes import pair_sizes as pair_sizes
from .checking._agreement import HIGHEST_RATE as HIGHEST_RATE
from .checking._agreement import Agreement as Agreement
from .checking._agreement import from_repeats as from_repeats
from .checking._check import OnBadPairs as OnBadPairs
from .checking._check import check_pairs as check_pairs
from .checking._check import drop_bad as drop_bad
from .checking._check import sample_tokens as sample_tokens
from .checking._report import DataReport as DataReport
from .checking._report import Finding as Finding
from .checking._report import Lengths as Lengths
from .reading._load import load_pairs as load_pairs
