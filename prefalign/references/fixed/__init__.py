"""References that never change: the start, nothing, a checkpoint, a model that is given."""

from ._fixed import Fixed as Fixed
