"""From arguments to a plan of the run: its policy, its data, its objective."""

from ._plan import Plan as Plan
from ._plan import plan_run as plan_run
from ._policy import loading_errors as loading_errors
