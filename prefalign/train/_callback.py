"""The trainer's callback: hooks of the reference, state with every checkpoint, what is printed at the start."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from .._errors import CheckpointError
from ..references import load_state, save_state
from ._estimate import estimate_training
from ._trl import set_tokens_seen, tokens_seen
from .checkpoints import LAST_FILE, binding_of, check_binding, check_weights, finish, rotate, run_record, write_run

if TYPE_CHECKING:
    from ._host import Host

REFERENCE_STATE = "prefalign_reference"
WATCH_STATE = LAST_FILE.removesuffix(".json")  # saved last: with it a checkpoint is whole
PLAY_STATE = "prefalign_self_play"


class RunCallback(TrainerCallback):  # type: ignore[misc]
    """Added by `PrefTrainer`; every hook runs on every process.

    Args:
        trainer: The trainer that it belongs to.
    """

    def __init__(self, trainer: Host) -> None:
        self.trainer = trainer
        self.resume_from: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Restore the states of a resumed run, and say what is trained."""
        trainer = self.trainer
        if self.resume_from is not None:
            self._restore(Path(self.resume_from))
        if trainer.self_play is not None and state.is_world_process_zero:
            trainer.self_play.keep_samples_before(state.global_step)
        if state.is_world_process_zero:
            record = run_record(trainer, trainer.objective, trainer.data_reports, trainer.noise_rate)
            path = write_run(args.output_dir, record)
            print(f"Loss: {trainer.objective.formula}")
            print(f"Reference: {trainer.reference.identity}")
            if trainer.token_batches is not None:
                print(trainer.token_batches)
            cost = estimate_training(trainer)
            if cost is not None:
                print(cost)
            print(f"Record of the run: {path}", flush=True)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pass the step on to the reference, which then generates what the step's batches lack."""
        self.trainer.reference.on_step_begin(state.global_step)
        if self.trainer.self_play is not None:
            self.trainer.self_play.fill(state.global_step)
        if self.trainer.token_batches is not None:
            self.trainer.token_batches.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pass the step on to the reference; look at the weights before they are saved."""
        self.trainer.reference.on_step_end(state.global_step)
        if control.should_save:
            check_weights(self.trainer.model, args.output_dir, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save the states of the reference, of the watch and of self-play with the checkpoint."""
        folder = self.checkpoint(state.global_step)
        self.trainer.reference.save_files(folder)
        reference, watch = self.trainer.reference.state_dict(), self.trainer.watch.state_dict()
        play = None if self.trainer.self_play is None else self.trainer.self_play.state_dict()
        if state.is_world_process_zero:
            if play is not None:
                save_state(folder, PLAY_STATE, play)
            save_state(folder, REFERENCE_STATE, {"expression": self.trainer.reference.expression, **reference})
            more = {"num_tokens": tokens_seen(self.trainer), "loss": self.trainer.objective.name, "run": self._binding}
            more["calibration"] = self.trainer.calibration.state_dict()
            save_state(folder, WATCH_STATE, {**watch, **more})
        self.trainer.accelerator.wait_for_everyone()  # every process writes its random state
        if args.should_save:
            finish(folder)
            rotate(args.output_dir, args.save_total_limit, state.best_model_checkpoint)

    @cached_property
    def _binding(self) -> dict[str, Any]:
        return binding_of(self.trainer)

    def checkpoint(self, step: int) -> Path:
        """The folder of the checkpoint after `step`."""
        return Path(self.trainer.args.output_dir) / f"checkpoint-{step}"

    def _restore(self, folder: Path) -> None:
        reference = self.trainer.reference
        saved = load_state(folder, REFERENCE_STATE)
        if saved is None:
            if not reference.fixed:
                raise CheckpointError(
                    f"{str(folder)!r} must hold the state of the reference {reference.expression!r}, which changes "
                    "during training, but does not. Resume from another checkpoint, or start a new run."
                )
            return  # saved by TRL's own trainer, whose reference is the same
        if saved.get("expression") != reference.expression:
            raise CheckpointError(
                f"The run in {str(folder)!r} was trained with the reference {saved.get('expression')!r} "
                f"(got {reference.expression!r}). Resume with that one, or start a new run."
            )
        watched = load_state(folder, WATCH_STATE)
        self._check_loss(folder, watched or {})
        check_binding(folder, (watched or {}).get("run"), self._binding)
        reference.load_files(folder)
        reference.load_state_dict(saved)
        play = load_state(folder, PLAY_STATE)
        if self.trainer.self_play is not None and play is not None:
            self.trainer.self_play.load_state_dict(play)
        if watched is not None:
            try:
                set_tokens_seen(self.trainer, watched["num_tokens"])
                self.trainer.watch.load_state_dict(watched)
                self.trainer.calibration.load_state_dict(watched.get("calibration", {}))
            except (KeyError, TypeError, ValueError) as error:
                raise CheckpointError(
                    f"The state `{WATCH_STATE}` in {str(folder)!r} is damaged ({error!r}). Resume from an earlier "
                    "checkpoint."
                ) from error

    def _check_loss(self, folder: Path, watched: Mapping[str, Any]) -> None:
        """Refuse to go on with another loss: the optimizer's state, and the curves, would be of two objectives."""
        before, now = watched.get("loss"), self.trainer.objective.name  # older checkpoints do not say
        if before is not None and before != now:
            raise CheckpointError(
                f"The run in {str(folder)!r} was trained with the loss {before!r} (got {now!r}). Resume with that one, "
                "or start a new run from its weights: give the folder as the model."
            )
