"""From expressions to logic: cases, log ratios, rules, and the check against the code."""

from ._check import GUARDED_SCALES as GUARDED_SCALES
from ._check import SCALES as SCALES
from ._check import Disagreement as Disagreement
from ._check import check as check
from ._directions import course_by_name as course_by_name
from ._directions import direction_by_name as direction_by_name
from ._log_linear import is_live as is_live
from ._reading import Reading as Reading
from ._reading import reading as reading
from ._rules import read as read
