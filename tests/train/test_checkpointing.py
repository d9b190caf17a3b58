"""Gradient checkpointing: what the option says is what the model's modules do while they train."""

from __future__ import annotations

import pytest
from transformers import TrainerCallback

from tests.train.runs import ours


class Asks(TrainerCallback):
    """Looks at the modules in the middle of a step."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen.append({m.gradient_checkpointing for m in model.modules() if hasattr(m, "gradient_checkpointing")})


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_the_modules_recompute_where_it_is_asked_for(wanted, shared_prefix, checkpoint, tmp_path):
    asks = Asks()
    options = {"gradient_checkpointing": wanted, "shared_prefix": shared_prefix, "max_steps": 1}
    ours(tmp_path, checkpoint, {"callbacks": [asks]}, **options).train()
    assert asks.seen == [{wanted}]
