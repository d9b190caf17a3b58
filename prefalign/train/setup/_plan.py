"""A run before anything loads: every argument read, checked and put together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..._errors import ConfigError
from ...references import GivenModel
from .. import _trl
from .._rows import IndexedCollator
from ..batches import PairWeights, check_scored, check_token_batches, read_weights
from ..cache import CachePlan, plan_cache
from ..checkpoints import check_alone, check_output_dir
from ..config import (
    Objective,
    PrefConfig,
    check_args,
    check_best_model,
    check_is_dataset,
    check_packages,
    check_vocabulary,
    mirror,
    put_together,
)
from ..generation import (
    BaselinePlan,
    Generator,
    Sampling,
    TransformersGenerator,
    plan_baseline,
    prepare_generation,
    takes_winners,
)
from ._data import Data, prepare_data
from ._flip_rate import settle_flip_rate
from ._policy import (
    base_of_adapter,
    check_model_options,
    default_output_dir,
    describe_policy,
    embedding_rows,
    load_adapter,
    read_adapter,
)
from ._second import check_adapter_start, second_model
from ._skeleton import build_skeleton, check_adapter


@dataclass(frozen=True)
class Plan:
    """What is trained, on what, and how.

    Attributes:
        args: The training arguments: a copy of what was given that says what is trained.
        objective: The loss and the reference.
        data: The data, checked and numbered.
        pair_weights: The weights of the pairs; None where every pair counts the same.
        sampling: How losing samples are made for winners alone; None where none are.
        baseline: Whose completions RPO's likelihood is of; None for the chosen ones.
        caching: Whether the reference's log-probabilities are kept on disk.
        generator: What makes completions.
        second: Loads the second model, if there is one.
        name: The policy as it was given, for errors.
        quantization: The policy's quantization.
        trl: The arguments of TRL's constructor but for `ref_model`.
    """

    args: Any
    objective: Objective
    data: Data
    pair_weights: PairWeights | None
    sampling: Sampling | None
    baseline: BaselinePlan | None
    caching: CachePlan
    generator: Generator
    second: Callable[[], nn.Module | None]
    name: Any
    quantization: Any
    trl: dict[str, Any]

    def for_trl(self) -> dict[str, Any]:
        """The arguments of TRL's constructor; the second model loads here, unless the cache may do without it."""
        return {**self.trl, "ref_model": _trl.NoModel() if self.caching.postpones else self.second()}


def plan_run(
    *,
    model: Any,
    ref_model: Any,
    args: Any,
    data_collator: Any,
    train_dataset: Any,
    eval_dataset: Any,
    processing_class: Any,
    quantization_config: Any,
    peft_config: Any,
    loss: Any,
    reference: Any,
    generator: Generator | None,
    sft_dataset: Any,
    **others: Any,
) -> Plan:
    """Plan a run from the arguments of `PrefTrainer`.

    An adapter's folder is loaded once all else is checked, and a flip rate that is to be estimated is measured then.

    Raises:
        ConfigError: Arguments are unknown, contradict one another or would have no effect.
        CheckpointError: The reference does not fit the policy.
        DataError: The data cannot be trained on.
    """
    if model is None:
        raise ConfigError("`model` must be a model, a directory with one, or a hub id (got None).")
    args = PrefConfig(default_output_dir(model)) if args is None else copy.copy(args)
    check_args(args)
    check_packages(args)
    check_is_dataset("train_dataset", train_dataset)
    check_best_model(args, eval_dataset, others.get("compute_metrics") is not None)
    if ref_model is not None and reference is not None:
        raise ConfigError("`ref_model` and `reference` were both given; leave one of them out.")
    check_model_options(model, args)
    check_output_dir(args.output_dir)
    if args.process_index == 0:
        check_alone(args.output_dir)
    objective = put_together(args, loss, reference if ref_model is None else GivenModel(ref_model))
    base = base_of_adapter(model)
    named = model if base is None else base  # what tells of the policy until its adapter is loaded
    policy = describe_policy(named, processing_class, args)
    skeleton = build_skeleton(named, policy.config)
    check_adapter(read_adapter(model) if base is not None else peft_config, skeleton)
    check_vocabulary(policy.processing_class, embedding_rows(named, policy.config))
    objective.reference.check(policy)
    check_adapter_start(objective.reference, peft_config)
    data = prepare_data(train_dataset, eval_dataset, policy, args, takes_winners(objective.loss))
    weights = read_weights(data.train, data.eval, objective, args)
    check_token_batches(getattr(args, "tokens_per_batch", None), objective.loss)
    sampling = prepare_generation(named, policy, args, objective.loss, bool(data.winners), generator)
    baseline = plan_baseline(args, objective.loss, objective.reference, sft_dataset, named, policy, data.train)
    if base is not None:
        model = load_adapter(model, args, peft_config, quantization_config)
    objective = settle_flip_rate(objective, model, policy, data.train, args)
    mirror(objective, args)
    check_scored(args, objective.loss, data_collator, sampling is not None, data.train, policy.processing_class)
    draws = sampling is not None or (baseline is not None and baseline.sampling is not None)
    return Plan(
        args=args,
        objective=objective,
        data=data,
        pair_weights=weights,
        sampling=sampling,
        baseline=baseline,
        caching=plan_cache(args, objective.reference, data.train, ref_model, model, peft_config, draws),
        generator=generator or TransformersGenerator(),
        second=partial(second_model, model, ref_model, objective.reference, policy, args, peft_config),
        name=model,
        quantization=quantization_config,
        trl={
            "model": model,
            "args": args,
            "data_collator": None if data_collator is None else IndexedCollator(data_collator),
            "train_dataset": data.train,
            "eval_dataset": data.eval,
            "processing_class": policy.processing_class,
            "quantization_config": quantization_config if base is None else None,
            "peft_config": peft_config,
            **others,
        },
    )
