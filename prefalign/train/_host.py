"""What the parts of a trainer need of it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Gather = Callable[[Tensor], Tensor]
