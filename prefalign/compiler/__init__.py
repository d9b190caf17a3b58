"""Where logic and torch meet: code into rules (`derive`), rules into losses (`to_loss`, `logic`)."""

from ._derive import derive as derive
from ._reading import Reading as Reading
