"""From logic to losses: structures and links become torch code."""

from ._loss import GroupLoss as GroupLoss
from ._loss import LogicLoss as LogicLoss
from ._loss import check_parts as check_parts
from ._loss import returned as returned
from ._program import compile_structure as compile_structure
from ._summed import summed_behaviour as summed_behaviour
from ._tape import Tape as Tape
from ._tape import number as number
from ._tape import run as run
