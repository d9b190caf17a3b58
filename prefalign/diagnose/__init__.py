"""What happened in a run: intervals, samples before and after, and the report page."""

from __future__ import annotations

from ..data import from_repeats as from_repeats
from ._features import pair_features as pair_features
from ._flip_rate import FlipRate as FlipRate
from ._flip_rate import flip_rate as flip_rate
from ._flip_rate import from_margins as from_margins
from ._gold import SAMPLING as SAMPLING
from ._gold import gold_rewards as gold_rewards
from ._gold import load_model as load_model
from ._gold import sample as sample
from ._interval import Interval as Interval
from ._interval import interval as interval
from ._interval import paired_interval as paired_interval
from ._report import Report as Report
from ._report import write_report as write_report
from ._review import check_review as check_review
from ._review import read_decisions as read_decisions
from ._review import read_review as read_review
from ._run import Run as Run
from ._run import Series as Series
from ._run import read_run as read_run
from ._samples import Sample as Sample
from ._samples import read_samples as read_samples
from ._samples import write_samples as write_samples
from ._suspects import Noise as Noise
from ._suspects import Repeats as Repeats
from ._suspects import count_repeats as count_repeats
from ._suspects import list_suspects as list_suspects
from ._suspects import measure_noise as measure_noise
from ._suspects import write_suspects as write_suspects
from ._verdict import Remark as Remark
from ._verdict import judge as judge
from ._write import write_atomically as write_atomically
