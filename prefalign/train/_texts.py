"""Greedy completions of a few prompts, before and after training, for the report's table."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any


class Texts:
    """Completes the first prompts of a trainer's data, as often as it is asked.

    The prompts are those of the evaluation data where there are some, else of the training data; each is taken once.
    Decoding is greedy: it draws no random number, so a run with samples trains as one without.

    Args:
        trainer: A `PrefTrainer`, before training.
        count: How many prompts, >= 0.
        length: The most tokens of a completion, > 0.
    """

    def __init__(self, trainer: Any, count: int, length: int) -> None:
        self._trainer, self._length = trainer, length
        # Sharded weights would have to be gathered on every process for each token.
        alone = trainer.accelerator.num_processes == 1
        self._prompts = _first_prompts(trainer, count) if count and alone else []
        self._before = self._complete()

    def write(self, folder: Path) -> None:
        """Complete the prompts again, and write both completions into the run's folder."""
        from ..diagnose import write_samples

        if self._prompts:
            tokenizer = self._trainer.processing_class
            prompts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in self._prompts]
            write_samples(folder, prompts, self._before, self._complete())

    def _complete(self) -> list[str]:
        import torch
        from tqdm import tqdm

        trainer, tokenizer = self._trainer, self._trainer.processing_class
        model = trainer.accelerator.unwrap_model(trainer.model)
        training, texts = model.training, []
        model.eval()
        with torch.no_grad():
            # One at a time: padding would change the numbers, and a few prompts take seconds.
            for ids in tqdm(self._prompts, desc="Samples", disable=not self._prompts or trainer.args.disable_tqdm):
                row = torch.tensor([ids], device=trainer.accelerator.device)
                output = model.generate(
                    input_ids=row,
                    attention_mask=torch.ones_like(row),
                    max_new_tokens=self._length,
                    do_sample=False,
                    pad_token_id=tokenizer.pad_token_id,
                )
                texts.append(tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))
        model.train(training)
        return texts


def _first_prompts(trainer: Any, count: int) -> list[list[int]]:
    evaluation = trainer.eval_dataset
    if isinstance(evaluation, dict):
        evaluation = next(iter(evaluation.values()), None)
    data = trainer.train_dataset if evaluation is None else evaluation
    found: dict[tuple[int, ...], None] = {}
    for row in islice(data, 50 * count):  # a few hundred rows at most: some data sets repeat one prompt for long
        if row.get("prompt_ids"):
            found[tuple(row["prompt_ids"])] = None
        if len(found) == count:
            break
    return [list(ids) for ids in found]
