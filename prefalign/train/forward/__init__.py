"""The forward pass: a pair's common prefix once, padding never, the head where a token is scored."""

from ._distributions import Distributions as Distributions
from ._shared_prefix import Setup as Setup
from ._shared_prefix import install as install
from ._shared_prefix import install_all as install_all
from ._support import dropouts as dropouts
from ._support import reason_against as reason_against
from ._support import reason_against_default as reason_against_default
