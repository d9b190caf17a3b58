"""The demo's training: LoRA through `PrefTrainer`, with a progress bar, resumed from its last checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from ..losses import Loss
from ..train import PrefConfig, PrefTrainer, last_whole_checkpoint
from ._settings import BATCH, Settings

if TYPE_CHECKING:
    from datasets import Dataset


class _Progress(TrainerCallback):  # type: ignore[misc]
    """One bar that shows the loss and the margin, instead of a dictionary per logged step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="Training", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "rewards/margins" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}", margin=f"{float(logs['rewards/margins']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


def make_trainer(model: Any, tokenizer: Any, loss: Loss, noisy: Dataset, settings: Settings, out: Path) -> PrefTrainer:
    """The trainer of the demo; its checkpoints and its adapter go to `out`."""
    config = PrefConfig(
        str(out),
        max_steps=settings.steps,
        per_device_train_batch_size=BATCH,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(5, settings.steps - 1),
        max_length=128,
        shared_prefix=False,  # the numbers that the documentation shows were made so, and are to come again
        logging_steps=1,
        save_steps=10,
        save_total_limit=1,
        seed=settings.seed,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.accelerator.is_available(),
    )
    trainer = PrefTrainer(
        model,
        args=config,
        loss=loss,
        train_dataset=noisy,
        processing_class=tokenizer,
        # The modules are named because peft knows the defaults of well-known architectures only.
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        callbacks=[_Progress()],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def train(trainer: PrefTrainer) -> bool:
    """Train, from the last checkpoint if there is one; save the adapter. Returns whether it was resumed."""
    checkpoint = last_whole_checkpoint(trainer.args.output_dir)
    trainer.train(checkpoint)
    trainer.save_model()
    return checkpoint is not None


def merged(trainer: PrefTrainer) -> Any:
    """The trained model, its adapter folded into the weights, so that sampling costs no more than before."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    model.merge_adapter()
    return model.eval()
