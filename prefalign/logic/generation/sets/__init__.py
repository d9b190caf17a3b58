"""Sets of structures: conditions row by row, their sizes and their members."""

from typing import TYPE_CHECKING

from ._conditions import AllOf as AllOf
from ._conditions import AnyOf as AnyOf
from ._conditions import BoundedGradient as BoundedGradient
from ._conditions import Condition as Condition
from ._conditions import InRegion as InRegion
from ._conditions import MaxLiterals as MaxLiterals
from ._conditions import MonotoneRatio as MonotoneRatio
from ._conditions import Named as Named
from ._conditions import NoDisplacement as NoDisplacement
from ._conditions import Not as Not
from ._conditions import SurvivesSum as SurvivesSum
from ._conditions import conjuncts as conjuncts
from ._conditions import expand as expand
from ._conditions import skeleton as skeleton
from ._diagrams import count_by_diagram as count_by_diagram
from ._enumerate import MAX_KEPT as MAX_KEPT
from ._enumerate import by_literals as by_literals
from ._enumerate import listable as listable
from ._enumerate import region_size as region_size
from ._enumerate import stream as stream
from ._monotone import monotone_parts as monotone_parts
from ._ratios import collect as collect
from ._ratios import distinct_ratios as distinct_ratios
from ._ratios import first_of_ratio as first_of_ratio
from ._regions import LABELS as LABELS
from ._regions import Region as Region
from ._regions import symmetry as symmetry
from ._sizes import all_members as all_members
from ._sizes import quick_count as quick_count
from ._sizes import total_size as total_size

if TYPE_CHECKING:
    from ._enumerate import Pairs as Pairs
