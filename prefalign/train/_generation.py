"""Completions that the reference generates: how they are sampled, and who generates them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm
from transformers import GenerationConfig

from .._errors import ConfigError, TrainingError
from ..references import is_sharded


@dataclass
class GenerationOptions:
    """The options of `PrefConfig` for data of winners alone, where the reference generates the other completion.

    Args:
        max_new_tokens: Longest completion that is generated, in tokens, 1 or more; default: 64.
        temperature: 0 or more, dimensionless; 0 takes the likeliest token; default: 1.
        top_p: Sample from the likeliest tokens that together have this probability, above 0 and at most 1; default: 1.
        top_k: Sample from so many likeliest tokens, 0 or more; 0: from all; default: 0.
        stop_tokens: Tokens that end a completion, besides the end tokens of tokenizer and model.
        generate_ahead: For how many optimizer steps completions are generated at once, 1 or more; never beyond the step
            at which the reference changes; default: 4.
        generation_batch_size: Most sequences of one call of the generator, 1 or more; default: all at once.
    """

    max_new_tokens: int | None = field(
        default=None, metadata={"help": "Longest generated completion, in tokens; default: 64."}
    )
    temperature: float | None = field(
        default=None, metadata={"help": "Of generated completions; 0: likeliest token; default: 1."}
    )
    top_p: float | None = field(default=None, metadata={"help": "Nucleus of generated completions; default: 1."})
    top_k: int | None = field(
        default=None, metadata={"help": "Likeliest tokens that are sampled from; 0, the default: all."}
    )
    stop_tokens: list[str] | None = field(
        default=None, metadata={"help": "Tokens that end a generated completion, besides the model's own."}
    )
    generate_ahead: int | None = field(
        default=None, metadata={"help": "Optimizer steps that completions are generated for at once; default: 4."}
    )
    generation_batch_size: int | None = field(
        default=None, metadata={"help": "Most sequences of one call of the generator; default: all at once."}
    )


_DEFAULTS = {
    "max_new_tokens": 64,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "stop_tokens": (),
    "generate_ahead": 4,
    "generation_batch_size": None,
}
_RANGES = {
    "max_new_tokens": (1, "1 or more"),
    "temperature": (0, "0 or more"),
    "top_k": (0, "0 or more"),
    "generate_ahead": (1, "1 or more"),
    "generation_batch_size": (1, "1 or more"),
}


def given_options(args: Any) -> dict[str, Any]:
    """The options for generation that were given."""
    return {name: getattr(args, name) for name in _DEFAULTS if getattr(args, name, None) is not None}


def check_options(args: Any) -> None:
    """Refuse options for generation that are out of range.

    Raises:
        ConfigError: The first such option.
    """
    for name, value in given_options(args).items():
        if name == "stop_tokens":
            if not isinstance(value, list) or not all(isinstance(token, str) and token for token in value):
                raise ConfigError(f"`stop_tokens` must be a list of tokens (got {value!r}).")
            continue
        whole = name not in ("temperature", "top_p")
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        least, rule = _RANGES.get(name, (0, "above 0 and at most 1"))
        if not number or not least <= value < float("inf") or (name == "top_p" and not 0 < value <= 1):
            raise ConfigError(f"`{name}` must be {'a whole number, ' * whole}{rule} (got {value!r}).")


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled.

    Attributes:
        max_new_tokens, temperature, top_p, top_k: As in `GenerationOptions`.
        stop_ids: Numbers of the tokens that end a completion, which they belong to.
        pad_id: Number of the token that fills batches up.
        ahead: For how many optimizer steps completions are generated at once.
        batch: Most sequences of one call; None: all at once.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    stop_ids: tuple[int, ...]
    pad_id: int
    ahead: int
    batch: int | None


def read_sampling(args: Any, tokenizer: Any, generation_config: Any) -> Sampling:
    """The sampling that training arguments ask for.

    Args:
        args: A `PrefConfig`, or a `DPOConfig`, which has none of the options.
        tokenizer: The tokenizer, or a processor that has one.
        generation_config: The policy's `GenerationConfig`, which may name more end tokens.

    Raises:
        ConfigError: A stop token is none, or there is no end token.
    """
    options = {**_DEFAULTS, **given_options(args)}
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    known = tokenizer.get_vocab()
    for token in options["stop_tokens"]:
        if token not in known:
            raise ConfigError(
                f"`stop_tokens` must be single tokens of the vocabulary, and {token!r} is none. Write it as the "
                "tokenizer does, such as '<|im_end|>'."
            )
    ends = getattr(generation_config, "eos_token_id", None)
    ids = [tokenizer.eos_token_id, *(ends if isinstance(ends, list | tuple) else [ends])]
    ids += [known[token] for token in options["stop_tokens"]]
    stop_ids = tuple(dict.fromkeys(int(token) for token in ids if token is not None))
    if not stop_ids:
        raise ConfigError(
            "Neither tokenizer nor model has an end token, so that no generated completion would end. "
            "Set `tokenizer.eos_token`, or `stop_tokens`."
        )
    pad = tokenizer.pad_token_id
    return Sampling(
        max_new_tokens=options["max_new_tokens"],
        temperature=float(options["temperature"]),
        top_p=float(options["top_p"]),
        top_k=options["top_k"],
        stop_ids=stop_ids,
        pad_id=stop_ids[0] if pad is None else pad,
        ahead=options["generate_ahead"],
        batch=options["generation_batch_size"],
    )


@dataclass(frozen=True)
class Request:
    """What a generator is asked for.

    Attributes:
        prompts: Token ids of each prompt.
        sampling: How to sample.
        seed: Fixes every sample, given the other attributes.
        version: Tells the model's weights of different times apart: what serves them elsewhere sends them anew when it
            changes.
    """

    prompts: tuple[tuple[int, ...], ...]
    sampling: Sampling
    seed: int
    version: int


class Generator(Protocol):
    """Makes completions: `TransformersGenerator`, `VLLMGenerator`, or any callable with these arguments."""

    def __call__(self, model: nn.Module, request: Request) -> Sequence[Sequence[int]]:
        """One completion for each prompt.

        Args:
            model: The reference, unwrapped; it computes as the reference during the call only.
            request: The prompts, and how to sample.

        Returns:
            Token ids of each completion, without the prompt, ending with a stop token if the model ended it. What
            comes after a stop token is ignored; so is a completion that is empty or only padding (see `trim`).
        """
        ...


class TransformersGenerator:
    """Generates with transformers' `generate`, prompts padded on the left, in the process that trains.

    Where FSDP2 shards the model, every forward pass needs all processes: transformers lets them make equally many in a
    call, and here each makes as many calls as the one that has most to do.
    """

    @torch.no_grad()
    def __call__(self, model: nn.Module, request: Request) -> list[list[int]]:
        """See `Generator`."""
        device = next(model.parameters()).device
        made: list[list[int]] = []
        size = request.sampling.batch or len(request.prompts)
        parts = [request.prompts[start : start + size] for start in range(0, len(request.prompts), size)]
        calls = gather_object([len(parts)]) if is_sharded(dict(model.named_parameters())) else [len(parts)]
        with _own_randomness(request.seed, device), _evaluating(model):
            for part in tqdm(parts, desc="Generating", unit="batch", delay=2.0, leave=False, disable=len(parts) < 2):
                made += self._generate(model, part, request.sampling, device)
            for _ in range(max(calls) - len(parts)):
                self._generate(model, parts[0][:1], request.sampling, device)
        return made

    def _generate(
        self, model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling, device: torch.device
    ) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = torch.tensor([[sampling.pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        output = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=_config(sampling)
        )
        completions: list[list[int]] = output[:, width:].tolist()
        return completions


def _config(sampling: Sampling) -> GenerationConfig:
    # What shapes the distribution is set, and not left to be filled in from the model's own file.
    names = ("temperature", "top_p", "top_k") if sampling.temperature > 0 else ()
    return GenerationConfig(
        do_sample=bool(names),
        **{name: getattr(sampling, name) for name in names},
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(sampling.stop_ids),
        pad_token_id=sampling.pad_id,
        repetition_penalty=1.0,
        num_beams=1,
        use_cache=True,
    )


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Any:
    """Within, torch draws from `seed`; the training's own random numbers are not touched."""
    devices = [device] if device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
        torch.manual_seed(seed)
        yield


@contextmanager
def _evaluating(model: nn.Module) -> Any:
    """Within, the model is in evaluation mode: no dropout, and no gradient checkpointing, which excludes the cache."""
    training = {module for module in model.modules() if module.training}
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def seed_of(*numbers: int) -> int:
    """A seed for `torch.manual_seed` out of several numbers, all of which matter.

    Example:
        >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
        (True, False)
    """
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def trim(completion: Sequence[int], sampling: Sampling) -> list[int]:
    """A generator's completion up to its first stop token; empty if there is nothing but padding before any.

    Example:
        >>> sampling = Sampling(8, 1.0, 1.0, 0, stop_ids=(2,), pad_id=0, ahead=1, batch=None)
        >>> trim([5, 6, 2, 0, 0], sampling), trim([0, 0, 0], sampling), trim([2], sampling)
        ([5, 6, 2], [], [2])
    """
    kept: list[int] = []
    for token in completion:
        kept.append(int(token))
        if token in sampling.stop_ids:
            return kept
    while kept and kept[-1] == sampling.pad_id:
        kept.pop()
    return kept


def checked(made: object, request: Request, vocabulary: int) -> list[list[int]]:
    """What a generator returned, trimmed.

    Raises:
        TrainingError: It is not one completion for each prompt, or all completions are empty.
    """
    trimmed = read_completions(made, request, vocabulary)
    check_some(trimmed)
    return trimmed


def read_completions(made: object, request: Request, vocabulary: int) -> list[list[int]]:
    """What a generator returned, trimmed; all of it may be empty.

    Raises:
        TrainingError: It is not one completion for each prompt.
    """
    rows = list(made) if isinstance(made, Sequence) else None
    if rows is None or len(rows) != len(request.prompts):
        came = f"{len(rows)} completions" if rows is not None else repr(made)[:80]
        raise TrainingError(
            f"The generator must return one list of token ids for each of {len(request.prompts)} prompts (got {came})."
        )
    trimmed = [trim(row, request.sampling) for row in rows]
    wrong = next((token for row in trimmed for token in row if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise TrainingError(
            f"The generator returned the token {wrong}, and the policy's vocabulary has {vocabulary}. "
            "Does it serve another model?"
        )
    return trimmed


def check_some(completions: Collection[Sequence[int]]) -> None:
    """Refuse completions all of which are empty.

    Raises:
        TrainingError: They are.
    """
    if not any(completions):
        raise TrainingError(
            f"The generator returned nothing, or only padding, for all of {len(completions)} prompts. Look at the chat "
            "template, `stop_tokens` and `max_new_tokens`, and at what serves the model."
        )
