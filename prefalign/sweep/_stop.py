"""Ending a process's part of a training at a rung."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback


class Reached(Exception):
    """The run has come to its rung."""


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Ends the process's part of a training after a step, with that step's evaluation in its checkpoint.

    The schedule of the learning rate is that of the whole run, which goes on from there if it is not stopped.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask for a checkpoint; the evaluation is there anyway."""
        if state.global_step == self.step:
            control.should_save = True

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop once all that belongs to the step is written."""
        if state.global_step >= self.step:
            raise Reached
