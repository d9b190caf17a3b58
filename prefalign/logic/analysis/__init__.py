"""What a loss does: its limits, its behaviour in words, and the page that explains it."""

from ._behaviour import Behaviour as Behaviour
from ._limits import Summed as Summed
from ._limits import levels as levels
from ._limits import summed as summed
