"""From logic to losses: structures and links become torch code."""

from ._loss import GroupLoss as GroupLoss
from ._loss import LogicLoss as LogicLoss
from ._tape import Tape as Tape
