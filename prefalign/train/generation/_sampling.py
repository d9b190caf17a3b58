"""A request for texts: prompts, sampling and seed, and what may answer it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from ..._errors import ConfigError, TrainingError
from ..config import DEFAULTS, given_options


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
        ConfigError: A stop token is not in the vocabulary, or there is no end token.
    """
    options = {**DEFAULTS, **given_options(args)}
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
