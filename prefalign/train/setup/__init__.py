"""From arguments to a policy and its data."""

from ._data import prepare_data as prepare_data
from ._estimate import estimate_training as estimate_training
from ._flip_rate import settle_flip_rate as settle_flip_rate
