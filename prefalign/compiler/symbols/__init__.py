"""The symbols that stand for log-probabilities and lengths, and numbers in place of them."""

from ._numeric import evaluate as evaluate
from ._numeric import holds as holds
from ._symbols import is_frozen as is_frozen
