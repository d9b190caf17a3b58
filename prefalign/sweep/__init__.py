"""What `prefalign sweep` is made of: the plan, the study that keeps it, one process per run, and the page."""

from ._arms import Arm as Arm
from ._arms import Recipe as Recipe
from ._arms import make_arms as make_arms
from ._page import summary as summary
from ._page import write_page as write_page
from ._plan import Halving as Halving
from ._plan import Plan as Plan
from ._plan import check_base as check_base
from ._plan import check_halving as check_halving
from ._plan import hash_data as hash_data
from ._plan import read_base as read_base
from ._results import collect as collect
from ._study import Queue as Queue
from ._study import open_queue as open_queue
from ._work import work as work
