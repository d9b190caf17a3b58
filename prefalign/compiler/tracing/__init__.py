"""From code to expressions: a loss function runs on symbolic tensors."""

from ._inputs import masks_of as masks_of
from ._quantities import Quantities as Quantities
from ._quantities import random as random
from ._roles import given_roles as given_roles
from ._tensor import is_policy as is_policy
from ._trace import Formula as Formula
from ._trace import evaluate as evaluate
from ._trace import label_of as label_of
from ._trace import trace as trace
