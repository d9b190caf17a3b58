"""Texts generated while training: self-play, winners alone, RPO's baseline."""

from ._baseline import Baseline as Baseline
from ._baseline_plan import BaselinePlan as BaselinePlan
from ._baseline_plan import plan_baseline as plan_baseline
from ._generators import TransformersGenerator as TransformersGenerator
from ._sampling import Generator as Generator
from ._sampling import Request as Request
from ._sampling import Sampling as Sampling
from ._self_play import SelfPlay as SelfPlay
from ._self_play import anchor_metrics as anchor_metrics
from ._winners import as_pairs as as_pairs
from ._winners import evaluated as evaluated
from ._winners import generates as generates
from ._winners import prepare_generation as prepare_generation
from ._winners import takes_winners as takes_winners
