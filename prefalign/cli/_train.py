"""`prefalign train FILE [--any-field VALUE]`: train a model on preference pairs."""

from ..train import add_training_arguments as configure
from ..train import run_training as run

__all__ = ["configure", "run"]
