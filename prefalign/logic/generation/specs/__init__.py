"""Specifications: what a structure must satisfy, as objects, text and YAML."""

from ._files import as_spec as as_spec
from ._spec import Specification as Specification
