"""The symbols that stand for log-probabilities and lengths, and numbers in place of them."""

from ._numeric import evaluate as evaluate
from ._numeric import holds as holds
