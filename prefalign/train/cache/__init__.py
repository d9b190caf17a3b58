"""The reference's log-probabilities, kept between steps and runs."""

from ._cache import ReferenceCache as ReferenceCache
from ._cache import settle as settle
from ._plan import CachePlan as CachePlan
from ._plan import plan_cache as plan_cache
