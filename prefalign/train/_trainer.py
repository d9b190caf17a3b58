"""The trainer: TRL's `DPOTrainer`, whose loss is an object and whose reference is an object."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import DPOTrainer

from ..losses import Loss, PairLogps
from ..references import Logps, Reference
from . import _trl
from ._calibration import Calibration
from ._callback import RunCallback
from ._pairs import pairs_of
from ._rows import PAIR_INDEX, IndexedCollator, describe_row, signature_columns
from .batches import MARKS, Marking, ScoredCollator, TokenBatches
from .cache import ReferenceCache, settle
from .checkpoints import StartCheck, _whole, alone_in, bad_rows, extend_card, stop
from .config import check_arguments
from .forward import Distributions, install_all
from .generation import Baseline, Generator, SelfPlay, anchor_metrics, evaluated, generates
from .metrics import (
    Means,
    Statistics,
    Watch,
    before_end,
    count_rows,
    divergence,
    kl_metric,
    pair_statistics,
    term_metrics,
    weights_now,
)
from .setup import Plan, loading_errors, plan_run


class PrefTrainer(DPOTrainer):  # type: ignore[misc]
    """Trains a causal language model on preference pairs.

    A TRL `DPOTrainer` by every public name: the same data formats, training arguments, metrics and checkpoints.

    Args:
        model: A model, a `PeftModel` whose adapter is trained further, a directory (of an adapter, too), or a hub id.
        ref_model: A model to compare with, instead of `reference`.
        args: Training arguments; TRL's `DPOConfig` will do.
        loss: A `Loss` or a loss expression. Default: what `args` say.
        reference: A `Reference` or a reference expression. Default: what `args` say; else the policy as training
            starts, or none if the loss needs none.
        generator: Makes the completions that data of winners alone lack, with the reference. Default: transformers'
            `generate`. See `Generator`.
        sft_dataset: Rows of `prompt` with `completion`, or `chosen`, for a term with baseline="sft_dataset"; instead of
            the option `sft_dataset_name`.
        train_dataset: Pairs in one of TRL's formats; for `SePPO` also prompts with `chosen`, or `completion`, alone.
        eval_dataset: Pairs for evaluation, or a dict of them.
        processing_class: The tokenizer. Default: the one saved with the model.
        data_collator, compute_metrics, callbacks, optimizers, quantization_config, peft_config: As in `DPOTrainer`.

    Attributes:
        objective: The loss and the reference, put together.
        reference: What the policy is compared with.
        forward_pass: Makes the forward pass of a batch; see `plain_forward`.
        shared_prefix: The policy's shared-prefix forward; None where it is off.
        reference_cache: The reference's log-probabilities on disk; None if they are not kept.
        data_reports: What the check of each data set found.
        noise_rate: Share of training labels that were flipped on purpose; None if that is not known.

    Raises:
        ConfigError: Arguments are unknown, contradict one another or would have no effect.
        CheckpointError: The reference does not fit the policy.
        DataError: The data cannot be trained on.
    """

    def __init__(
        self,
        model: Any = None,
        ref_model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
        callbacks: Any = None,
        optimizers: Any = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        *,
        loss: Loss | str | None = None,
        reference: Reference | str | None = None,
        generator: Generator | None = None,
        sft_dataset: Any = None,
        **unknown: Any,
    ) -> None:
        check_arguments(type(self), unknown)
        plan = plan_run(
            model=model,
            ref_model=ref_model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            loss=loss,
            reference=reference,
            generator=generator,
            sft_dataset=sft_dataset,
        )
        self._prepare(plan)
        with loading_errors(plan.name):
            super().__init__(**plan.for_trl())
        self._attach(plan)

    def _prepare(self, plan: Plan) -> None:
        """What TRL's constructor calls upon."""
        self.objective, self.reference = plan.objective, plan.objective.reference
        self.pair_weights = plan.pair_weights
        self.data_reports, self.noise_rate, self.splits = plan.data.reports, plan.data.noise_rate, plan.data.splits
        self.marking = Marking(getattr(plan.args, "score", "completion"))
        self.forward_pass: _trl.Forward = _trl.plain_forward
        self.watch = Watch(from_reference=self.reference.is_start)
        self.means = Means(self)
        self._eval_prefix = "eval"
        self.distributions = Distributions("kl" in plan.objective.loss.reads_tokens)
        self.statistics = Statistics(self, getattr(plan.args, "statistics", "every_step") == "every_step")

    def _attach(self, plan: Plan) -> None:
        """What stands on the trainer that TRL's constructor made."""
        args = plan.args
        if plan.trl["data_collator"] is None:
            self.data_collator: Any = IndexedCollator(ScoredCollator(self.data_collator))
        self.self_play: SelfPlay | None = None
        if plan.sampling is not None:
            self.self_play = SelfPlay(self, plan.generator, plan.sampling, plan.data.winners)
        self.baseline = None if plan.baseline is None else Baseline(self, plan.baseline, plan.generator)
        self.beta = self.objective.beta
        self.calibration = Calibration(self, self.objective.loss)
        self.reference.setup(self)
        self.statistics.install()
        budget = getattr(args, "tokens_per_batch", None)
        self.token_batches = None if budget is None else TokenBatches(self, budget)
        asked = getattr(args, "shared_prefix", False)  # TRL's own configuration: TRL's own forward
        self.shared_prefix = install_all(self.model, self.ref_model, self.accelerator, asked, args.neftune_noise_alpha)
        self.reference_cache: ReferenceCache | None = settle(self, plan.caching, plan.second, plan.quantization)
        self._check_start = StartCheck(self)
        self._run = RunCallback(self)
        self.add_callback(self._run)
        self.model.add_model_tags(["prefalign"])

    @property
    def ref_model(self) -> Any:
        """The second set of weights, or None."""
        return self._second_model

    @ref_model.setter
    def ref_model(self, model: Any) -> None:
        # TRL loads a reference unless it is given one; the stand-in that prevents it is never kept.
        self._second_model = None if isinstance(model, _trl.NoModel) else model

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a batch: sum(weight * term(pairs).mean()) over the terms of `objective.loss`.

        Args:
            model: The wrapped policy.
            inputs: A collated batch.
            return_outputs: Also return the model's outputs (deprecated by TRL).
            num_items_in_batch: Not used, as in TRL.

        Raises:
            TrainingError: The loss is not finite; the message names the rows.
        """
        with _trl.each_row_once(self):
            return self._compute_loss_of(model, dict(inputs), return_outputs, num_items_in_batch)

    def _compute_loss_of(self, model: Any, inputs: dict[str, Any], return_outputs: bool, items: Any) -> Any:
        numbers = inputs.pop(PAIR_INDEX, None)
        if self.self_play is not None and not self.model.training:
            inputs = self.self_play.fill_evaluation(inputs, numbers)
        with self.distributions.of_reference():
            reference_tokens = self._put_reference(inputs)
        self._check_start(model, inputs, reference_tokens)
        weights = inputs.pop(_trl.TOKEN_WEIGHTS, None)
        recorder = _trl.Recorder(model, self.forward_pass, weights)
        logged = return_outputs or self.statistics.wanted
        if logged:
            with _trl.trl_computes(self, [], []), self.distributions.of_policy():
                result = super().compute_loss(recorder, inputs, return_outputs, items)
        else:
            with self.statistics.left_out(), self.distributions.of_policy():
                _trl.forward_alone(self, recorder, inputs)
            result = 0.0
        loss, outputs = result if return_outputs else (result, None)
        tokens, reads = recorder.token_logps(inputs["completion_mask"]), self.objective.loss.reads_tokens
        single = recorder.single(inputs["completion_mask"], reference_tokens, "kl" in reads) if reads else None
        pairs = pairs_of(inputs, tokens, self.reference.needs_model, single, weights)
        if self.baseline is not None:
            pairs = self.baseline.add(pairs, model, numbers)
        pairs = self.calibration.add(pairs)
        values = self.objective.loss.term_values(pairs)
        mean = None if self.pair_weights is None else partial(self.pair_weights.mean, numbers=numbers)
        count = _trl.rows_counted(self, len(pairs.chosen))
        counted = [value[:count] for value in values] if count else values
        loss = loss + self.objective.loss.combine(counted, weights_now(self), mean)
        self._watch(pairs, values, inputs, numbers, tokens.detach(), reference_tokens)
        if not logged:
            self._log_pairs(inputs, pairs)
        self.means.absorb("train" if self.model.training else "eval", count_rows(inputs["completion_mask"]))
        if not torch.isfinite(loss.detach()):
            raise self._not_finite(pairs, values, inputs, numbers)
        return (loss, outputs) if return_outputs else loss

    def _run_epoch(self, *args: Any, **options: Any) -> Any:
        # Without this a run that is resumed from its last checkpoint takes one more step before transformers looks.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return None
        return super()._run_epoch(*args, **options)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """The forward and backward pass of a batch; with `tokens_per_batch` a step's last batch runs them all."""
        if self.token_batches is None:
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        return self.token_batches.train(super().training_step, model, inputs, num_items_in_batch)

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        """The loss of a batch in an evaluation; with `tokens_per_batch` it is divided like one in training."""
        if self.token_batches is None or self.self_play is not None or not prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return self.token_batches.predict(super().prediction_step, model, inputs, ignore_keys)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """The batches of an optimizer step; with winners alone, later ones are fetched too, to generate for all."""
        if self.self_play is not None and self.self_play.trains:
            epoch_iterator = self.self_play.look_ahead(epoch_iterator, num_batches)
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def compute_ref_log_probs(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of a batch under `model`, without gradients: (chosen, rejected), (pairs,), sums in nats."""
        found = self.reference_logps(model, inputs)
        return found.chosen, found.rejected

    def reference_logps(self, model: Any, inputs: Mapping[str, Any], *, adapter_on: bool = False) -> Logps:
        """Log-probabilities of a batch under `model`, without gradients, and those of every token.

        Args:
            model: The second model; the policy where there is none.
            inputs: A collated batch.
            adapter_on: The policy's adapter stays as it is; otherwise it is off, or the one named "ref" is on.
        """
        recorder = _trl.Recorder(model, self.forward_pass, inputs.get(_trl.TOKEN_WEIGHTS))
        batch = {key: value for key, value in inputs.items() if key not in (PAIR_INDEX, _trl.TOKEN_WEIGHTS)}
        with self.statistics.left_out(), _trl.adapter_left_on(self) if adapter_on else nullcontext():
            chosen, rejected = super().compute_ref_log_probs(recorder, batch)
        return Logps(chosen, rejected, recorder.token_logps(inputs["completion_mask"]))

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **options: Any) -> Any:
        """Train; with `resume_from_checkpoint` the reference's state is restored too.

        `True` resumes from the latest checkpoint in `output_dir` that was written to its end.

        Raises:
            CheckpointError: The checkpoint is not whole, or its reference is another one.
            ConfigError: Another process trains in `output_dir`.
            TrainingError: A loss or the weights are not finite, or the disk takes no more.
        """
        self._run.resume_from = _whole.find_checkpoint(resume_from_checkpoint, self.args.output_dir)
        if self._run.resume_from is not None:
            self.args.eval_on_start = False  # this run has started before: a second time is no point of its curve
        folder, resumed = self.args.output_dir, self._run.resume_from
        alone = alone_in(folder) if self.is_world_process_zero() else nullcontext()
        with alone, _whole.disk_errors(folder), _whole.resume_errors(resumed):
            return super().train(resumed, *args, **options)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate, as `DPOTrainer` does; `eval_dataset` may be new winners alone where the training data were.

        Of several data sets, each metric bears its set's name, `eval_NAME_rewards/margins`, as the loss does.
        """
        before, self._eval_prefix = self._eval_prefix, metric_key_prefix
        try:
            found = super().evaluate(evaluated(self, eval_dataset), ignore_keys, metric_key_prefix)
        finally:
            self._eval_prefix = before
        return found  # type: ignore[no-any-return]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with means over pairs and tokens in the place of means over batches."""
        mode = "train" if self.model.training else "eval"
        self.means.settle(mode)
        if mode == "eval":
            _trl.name_set(self, self._eval_prefix)
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, as transformers' trainer does.

        Raises:
            TrainingError: The disk takes no more.
        """
        with _whole.disk_errors(self.args.output_dir):
            super().save_model(output_dir, _internal_call)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:
            _whole.begin(self._run.checkpoint(self.state.global_step))
        # Older checkpoints go once this one is whole (`RunCallback.on_save`), or a kill could leave none.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit

    def create_model_card(self, model_name: str | None = None, *args: Any, **options: Any) -> None:
        """TRL's model card with the loss's formula, the reference's identity and the noise rate."""
        super().create_model_card(model_name or Path(self.args.output_dir).name, *args, **options)
        if self.is_world_process_zero():
            path = Path(self.args.output_dir) / "README.md"
            extend_card(path, self.objective, self.noise_rate, _trl.model_id(self.model.config) or None)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        signature_columns(self, MARKS)

    def _prepare_dataset(self, *arguments: Any) -> Any:
        return self.marking.rows(super()._prepare_dataset(*arguments), *arguments[1:])

    def _put_reference(self, inputs: dict[str, Any]) -> Tensor | None:
        """Put the reference's log-probabilities into the batch; return those of every token, if they are known."""
        chosen_key, rejected_key = _trl.REFERENCE_KEYS
        if self.precompute_ref_logps:
            return None
        if self.reference_cache is not None:
            *(inputs[chosen_key], inputs[rejected_key]), tokens = self.reference_cache.logps(inputs)
            return tokens
        logps = self.reference.logps(inputs)
        if logps is None:  # TRL's metrics need numbers: its rewards become beta * log pi
            zeros = torch.zeros(len(inputs["input_ids"]) // 2, device=inputs["input_ids"].device)
            logps = Logps(zeros, zeros)
        # A reference of a user's own may return the two sums alone.
        inputs[chosen_key], inputs[rejected_key], tokens = Logps(*logps)
        return tokens

    def _watch(
        self,
        pairs: PairLogps,
        values: list[Tensor],
        inputs: Mapping[str, Any],
        numbers: Tensor | None,
        tokens: Tensor,
        reference_tokens: Tensor | None,
    ) -> None:
        gather = self.accelerator.gather
        metrics = self.watch.changes(pairs, numbers, gather) | term_metrics(self.objective.loss, values, gather)
        if generates(self.objective.loss):
            metrics |= anchor_metrics(pairs, gather)
        if self.self_play is not None and not self.watch.from_reference:
            metrics.pop("logps/rejected_change", None)  # what is generated is another text each time
        if reference_tokens is not None:
            mask = before_end(inputs["completion_mask"][..., 1:])
            for side in mask.chunk(2):
                side[_trl.rows_counted(self, len(pairs.chosen)) :] = 0
            metrics |= kl_metric(divergence(tokens, reference_tokens, mask), mask, gather, tokens.device)
        for name, value in metrics.items():
            _trl.add_metric(self, "train" if self.model.training else "eval", name, value)

    def _log_pairs(self, inputs: Mapping[str, Any], pairs: PairLogps) -> None:
        """What TRL would log of a batch, as far as it follows from the log-probabilities."""
        gather = self.accelerator.gather
        for name, value in pair_statistics(inputs, pairs.chosen, pairs.rejected, self.beta, gather).items():
            _trl.add_metric(self, "train", name, value)

    def _not_finite(
        self, pairs: PairLogps, values: list[Tensor], inputs: dict[str, Any], numbers: Tensor | None
    ) -> Exception:
        rows = [
            describe_row(place, inputs, numbers, self.splits, self.processing_class)
            for place in bad_rows(pairs, values)
        ]
        return stop(f"The loss is not finite at step {self.state.global_step}.", rows, self.args.output_dir)
