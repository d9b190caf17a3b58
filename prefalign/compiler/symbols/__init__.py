"""The symbols that stand for log-probabilities and lengths, and numbers in place of them."""

from ._numeric import evaluate as evaluate
from ._numeric import holds as holds
from ._numeric import in_logs as in_logs
from ._symbols import COUNTS as COUNTS
from ._symbols import LOGPS as LOGPS
from ._symbols import hyper as hyper
from ._symbols import is_frozen as is_frozen
from ._text import formula_of as formula_of
