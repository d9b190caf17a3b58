"""What is logged beside TRL's metrics."""

from ._changes import Watch as Watch
from ._changes import before_end as before_end
from ._changes import divergence as divergence
from ._changes import kl_metric as kl_metric
from ._means import Means as Means
from ._means import count_rows as count_rows
from ._means import together as together
from ._statistics import Statistics as Statistics
from ._statistics import pair_statistics as pair_statistics
from ._terms import term_metrics as term_metrics
from ._terms import weights_now as weights_now
