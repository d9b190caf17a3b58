"""Where logic and torch meet: code into rules (`derive`), rules into losses (`to_loss`, `logic`)."""

from ._compare import compare as compare
from ._derive import derive as derive
from ._load import derive_target as derive_target
from ._load import load_function as load_function
from ._rule_loss import RuleLoss as RuleLoss
from ._rule_loss import rule as rule
from ._to_loss import logic as logic
from ._to_loss import to_loss as to_loss
from .lowering._loss import GroupLoss as GroupLoss
from .lowering._loss import LogicLoss as LogicLoss
from .reading._reading import Reading as Reading
from .tracing._quantities import Tokens as Tokens
