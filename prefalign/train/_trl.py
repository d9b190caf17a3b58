"""Everything that is known here of TRL's and transformers' private names; a contract test pins them.

The seam is TRL's documented customisation point, `compute_loss`. It is steered with data: reference log-probabilities
are put into the batch, the policy's forward is recorded on its way, and TRL computes no loss of its own; its metrics,
the auxiliary loss of mixtures of experts, evaluation and sharding stay TRL's.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from torch import Tensor, nn
from transformers import modeling_utils
from trl.trainer import utils as trl_utils
from trl.trainer.utils import add_fused_lm_head, create_model_from_path, get_config_model_id, maybe_gather_lm_head_ctx

from .._errors import CheckpointError, ConfigError
from .._files import new_folder
from ..losses import TokenLogps

TOKEN_WEIGHTS = "token_weights"  # of a batch: (2 pairs, length), where the data have weights
REFERENCE_KEYS = ("ref_chosen_logps", "ref_rejected_logps")
HEAD_OUTPUTS = ("entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
Forward = Callable[[nn.Module, Mapping[str, Any]], Any]


def plain_forward(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """The one forward pass of a batch: TRL's fused head, which returns per-token log-probabilities, nats.

    A faster forward with the same outputs (`log_probs`, `entropy`, `mean_logits`, `is_top1`, each
    (2 pairs, length - 1), 0 outside completions) may take its place as the trainer's `forward_pass`.
    """
    return model(**inputs)


class Recorder:
    """A model for TRL to call that keeps what the forward returned.

    Args:
        model: The wrapped model.
        forward: Makes the forward pass.
        weights: What multiplies each token's log-probability, (2 pairs, length); None: all count the same.

    Attributes:
        log_probs: Per-token log-probabilities in nats, (2 pairs, length - 1), chosen rows first; None before the call.
        log_sum_sq_probs: log(sum over the vocabulary of p**2) at each of them; None where the head leaves it out.
        calls: How many forward passes were made.
    """

    def __init__(self, model: nn.Module, forward: Forward, weights: Tensor | None = None) -> None:
        self.model = model
        self.forward = forward
        self.weights = weights
        self.log_probs: Tensor | None = None
        self.log_sum_sq_probs: Tensor | None = None
        self.calls = 0

    def __call__(self, **inputs: Any) -> Any:
        self.calls += 1
        if not inputs.get("fused_lm_head"):  # the deprecated `return_outputs`: logits, not log-probabilities
            return self.model(**inputs)
        outputs = self.forward(self.model, inputs)
        if self.weights is not None:
            virtual = outputs.log_probs.size(1) - self.weights.size(1) + 1
            outputs.log_probs = outputs.log_probs * nn.functional.pad(self.weights[:, 1:], (virtual, 0), value=1.0)
        self.log_probs = outputs.log_probs
        self.log_sum_sq_probs = getattr(outputs, "log_sum_sq_probs", None)
        return outputs

    def token_logps(self, completion_mask: Tensor) -> Tensor:
        """The recorded log-probabilities at the positions of real tokens (prompt learning prepends virtual ones)."""
        assert self.log_probs is not None, "the model was not called"
        return self.log_probs[:, -(completion_mask.size(1) - 1) :]

    def single(self, completion_mask: Tensor, reference: Tensor | None, diverges: bool) -> TokenLogps:
        """What a loss sees of single tokens.

        Args:
            completion_mask: The batch's.
            reference: The reference's log-probabilities of every token, if they are known.
            diverges: What the head gave as `log_sum_sq_probs` is the divergence from the reference.
        """
        tokens, third = self.token_logps(completion_mask), self.log_sum_sq_probs
        if third is not None:
            third = third[:, -tokens.size(1) :]
        elif diverges:
            raise ConfigError(
                "The loss compares distributions, and policy and reference were computed in two ways: one in the rows "
                "of the shared prefix, one without it. Use `shared_prefix=False`."
            )
        theirs = None if reference is None else reference.to(tokens.device)
        squares, kl = (None, third) if diverges else (third, None)
        return TokenLogps(tokens, completion_mask[:, 1:], theirs, squares, kl)


@contextmanager
def trl_computes(trainer: Any, types: Sequence[str], weights: Sequence[float]) -> Iterator[None]:
    """Within, TRL adds up these loss types only and takes the reference's log-probabilities from the batch."""
    names = ("loss_types", "loss_weights", "precompute_ref_logps")
    kept = {name: getattr(trainer, name) for name in names}
    trainer.loss_types, trainer.loss_weights, trainer.precompute_ref_logps = list(types), list(weights), True
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(trainer, name, value)


_OWN_HEAD = trl_utils._ChunkedLogProbFunction


def own_head() -> type[torch.autograd.Function]:
    """The autograd function of TRL's fused head."""
    return _OWN_HEAD  # type: ignore[no-any-return]


def head_is_replaced() -> bool:
    """Whether TRL's fused head calls another function than its own."""
    return trl_utils._ChunkedLogProbFunction is not _OWN_HEAD


@contextmanager
def head(function: Any) -> Iterator[None]:
    """Within, TRL's fused head calls this autograd function, with TRL's own arguments, in the place of its own."""
    kept = trl_utils._ChunkedLogProbFunction
    trl_utils._ChunkedLogProbFunction = function
    try:
        yield
    finally:
        trl_utils._ChunkedLogProbFunction = kept


def gathered_head(*parameters: Tensor | None) -> Any:
    """The context in which the head's sharded parameters (ZeRO-3) are whole."""
    return maybe_gather_lm_head_ctx(*parameters)


def policy_forward(recorder: Recorder, inputs: Mapping[str, Any]) -> None:
    """TRL's forward pass of a batch, recorded."""
    left_out = {"completion_mask", TOKEN_WEIGHTS, *REFERENCE_KEYS}
    batch = {key: value for key, value in inputs.items() if key not in left_out}
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    recorder(**batch, use_cache=False, labels=labels, fused_lm_head=True)


def forward_alone(trainer: Any, recorder: Recorder, inputs: Mapping[str, Any]) -> None:
    """TRL's forward pass of a batch and its count of tokens, without its loss and what it logs beside it."""
    policy_forward(recorder, inputs)
    tokens = trainer.accelerator.gather_for_metrics(inputs["attention_mask"].sum()).sum().item()
    trainer._total_train_tokens += tokens // trainer._tp_size
    trainer._metrics["train"]["num_tokens"] = [trainer._total_train_tokens]


def both_heads(model: nn.Module, extra: tuple[str, ...] = ()) -> tuple[Forward, Forward]:
    """The forward that TRL gave the model, with the statistics that it logs, and one with log-probabilities alone.

    Args:
        model: The model, once TRL has prepared it.
        extra: Outputs of the head that both compute, beside TRL's.
    """
    full = model.forward
    add_fused_lm_head(model, outputs=("log_probs", *extra))
    alone, model.forward = model.forward, full
    return full, alone


def compute_log_sum_sq(trainer: Any) -> None:
    """Let the policy's head compute `log_sum_sq_probs`, as TRL does for `use_weighting`."""
    if trainer.use_weighting:
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    get_base_model = getattr(model, "get_base_model", None)  # PEFT's
    add_fused_lm_head(model if get_base_model is None else get_base_model(), outputs=("log_probs", *HEAD_OUTPUTS))


def has_router_loss(trainer: Any) -> bool:
    """Whether TRL adds the auxiliary loss of a mixture of experts."""
    return bool(trainer.aux_loss_enabled)


def has_images(trainer: Any) -> bool:
    """Whether the data hold images."""
    return bool(trainer._is_vision_dataset)


@contextmanager
def metrics_apart(trainer: Any, mode: str) -> Iterator[Mapping[str, list[float]]]:
    """Within, what is logged goes into the mapping alone."""
    apart: defaultdict[str, list[float]] = defaultdict(list)
    kept = trainer._metrics[mode]
    trainer._metrics[mode] = apart
    try:
        yield apart
    finally:
        trainer._metrics[mode] = kept


@contextmanager
def uneven_gather(accelerator: Any) -> Iterator[None]:
    """Within, the accelerator gathers tensors whose processes have different numbers of rows."""
    if accelerator.num_processes == 1:
        yield
        return
    even = accelerator.gather

    def gather(tensor: Tensor) -> Tensor:
        if tensor.dim() == 0:
            return even(tensor)  # type: ignore[no-any-return]
        sizes = even(torch.tensor([len(tensor)], device=tensor.device)).tolist()
        padded = tensor.new_zeros(max(sizes), *tensor.shape[1:])
        padded[: len(tensor)] = tensor
        parts = even(padded).split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather


@contextmanager
def adapter_left_on(trainer: Any) -> Iterator[None]:
    """Within, TRL computes the reference's log-probabilities without turning the policy's adapter off.

    TRL leaves the adapter alone where there is a second model; here that is the policy itself.
    """
    kept, trainer.ref_model = trainer.ref_model, trainer.model
    try:
        yield
    finally:
        trainer.ref_model = kept


@contextmanager
def every_weight_found() -> Iterator[None]:
    """Within, a model whose files lack weights is refused; transformers trains on random ones, below a table.

    Raises:
        CheckpointError: Weights are missing; names the first.
    """
    report = modeling_utils.log_state_dict_report

    def checked(**options: Any) -> None:
        missing = sorted(options["loading_info"].missing_keys)
        if missing:
            raise CheckpointError(
                f"The weights in {str(options['pretrained_model_name_or_path'])!r} are not whole: {len(missing)} are "
                f"missing, {missing[0]!r} among them. They would be random. Use a folder that holds the whole model."
            )
        report(**options)

    modeling_utils.log_state_dict_report = checked
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            yield
    except UserWarning as error:
        if not str(error).startswith("Found missing adapter keys"):
            raise
        names = str(error).partition(":")[2].strip()
        raise CheckpointError(f"The adapter's weights are not whole, so that some would be random: {names}") from None
    finally:
        modeling_utils.log_state_dict_report = report


class NoModel(nn.Module):
    """Given to TRL as `ref_model` so that it loads none; `PrefTrainer.ref_model` never holds it."""


def share(dataset: Any, args: Any) -> Any:
    """The data set, on disk where all processes find it.

    TRL caches reference log-probabilities beside the data set's file; for data in memory each process would look in a
    temporary folder of its own, and all but the first would find nothing.
    """
    if dataset.cache_files:
        return dataset
    folder = Path(args.output_dir) / "prefalign_cache" / dataset._fingerprint
    with args.main_process_first(local=False, desc="sharing the data"):
        if args.process_index == 0 and not folder.is_dir():
            with new_folder(folder) as partial:
                dataset.save_to_disk(str(partial))
    return load_from_disk(str(folder))


def load_beside(path: str, policy: nn.Module | None, args: Any, policy_config: Any) -> nn.Module:
    """A second model in the dtype and with the attention implementation of the policy.

    Args:
        path: Directory or hub id.
        policy: The policy if it is loaded already; otherwise it will be, by the options in `args`.
        args: The training arguments; of `model_init_kwargs` all but `revision` apply.
        policy_config: The policy's config.
    """
    options = {k: v for k, v in (args.model_init_kwargs or {}).items() if k != "revision"}
    if args.distributed_state.distributed_type in ["MULTI_GPU", "DEEPSPEED"]:
        options["device_map"] = None
    options.setdefault("trust_remote_code", args.trust_remote_code)
    if policy is not None:
        config: Any = policy.config
        options["dtype"] = policy.dtype
        options["attn_implementation"] = base_of(config._attn_implementation)
    elif options.get("dtype") == "auto":  # the policy's own dtype, not the other checkpoint's
        options["dtype"] = policy_config.dtype or torch.float32
    return create_model_from_path(path, **options)  # type: ignore[no-any-return]


def model_id(config: Any) -> str | None:
    """Where a model was loaded from, as its config remembers it; None for one that was built in memory."""
    return get_config_model_id(config) or None


def is_sharded_at_load(args: Any) -> bool:
    """Whether weights are sharded while they are loaded (ZeRO-3), so that a model cannot be copied."""
    plugin = args.deepspeed_plugin
    return plugin is not None and plugin.zero_stage == 3


def tokens_seen(trainer: Any) -> float:
    """TRL's metric `num_tokens`, which TRL itself forgets when a run is resumed."""
    return float(trainer._total_train_tokens)


def set_tokens_seen(trainer: Any, count: float) -> None:
    """Go on counting from `count`."""
    trainer._total_train_tokens = count


def add_metric(trainer: Any, mode: str, name: str, value: float) -> None:
    """Log the mean of `value` over the batches until the next log, among TRL's own metrics."""
    trainer._metrics[mode][name].append(value)


def logged(trainer: Any, mode: str) -> dict[str, list[float]]:
    """What was logged since the last log: the values of each batch, by their names."""
    return trainer._metrics[mode]  # type: ignore[no-any-return]


def name_set(trainer: Any, prefix: str) -> None:
    """Put the name of an evaluation set before the names of its metrics, as the Trainer does for the loss."""
    _, _, name = prefix.partition("eval_")
    if name:
        metrics = trainer._metrics["eval"]
        for key in list(metrics):
            metrics[f"{name}_{key}"] = metrics.pop(key)


def rows_counted(trainer: Any, pairs: int) -> int:
    """How many of a batch's pairs count on this process: in an evaluation's last batch some may stand there twice."""
    accelerator, state = trainer.accelerator, trainer.accelerator.gradient_state
    if accelerator.num_processes == 1 or trainer.model.training or not state.end_of_dataloader or state.remainder <= 0:
        return pairs
    before = int(accelerator.process_index) * pairs
    return min(max(int(state.remainder) - before, 0), pairs)


@contextmanager
def each_row_once(trainer: Any) -> Iterator[None]:
    """Within, rows that stand twice in the last batch of an evaluation, so that all processes have some, count once."""
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1 or trainer.model.training or "gather" in vars(accelerator):
        yield
        return
    whole = accelerator.gather

    def gather(tensor: Tensor) -> Any:
        state, found = accelerator.gradient_state, whole(tensor)
        extra = tensor.dim() and state.end_of_dataloader and state.remainder > 0
        return found[: state.remainder] if extra else found

    accelerator.gather = gather
    try:
        yield
    finally:
        del accelerator.gather


def set_metric(trainer: Any, mode: str, name: str, values: list[float]) -> None:
    """Log the mean of these values, whatever was there before."""
    trainer._metrics[mode][name] = values


PREFIX = "prefalign_"  # of the attention implementations registered here; the rest is the one they stand on


def base_of(implementation: str | None) -> str:
    """The implementation that a registered one stands on, or itself."""
    return (implementation or "eager").removeprefix(PREFIX)
