"""Completions that the reference generates: how they are sampled, and who generates them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from tqdm import tqdm
from transformers import GenerationConfig

from ..._errors import ConfigError
from ...references import is_sharded
from ._sampling import Request, Sampling


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


class VLLMGenerator:
    """Generates on a vLLM server; the reference's weights are sent there whenever they changed.

    For one training process and whole models: adapters would have to be merged first. Samples repeat as far as the
    server's do for the same seed.

    Args:
        client: A `trl.generation.vllm_client.VLLMClient` whose communicator is initialised (`init_communicator`).

    Raises:
        ConfigError: When it is called, the policy has adapters, or there are several processes.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self._sent: int | None = None

    def __call__(self, model: nn.Module, request: Request) -> list[list[int]]:
        """See `Generator`."""
        if hasattr(model, "peft_config"):
            raise ConfigError(
                "`VLLMGenerator` sends whole models, and the policy has adapters. Leave out `generator`, or train all "
                "weights."
            )
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            raise ConfigError("`VLLMGenerator` serves one training process. Leave out `generator`, or launch one.")
        if self._sent != request.version:
            self.client.update_model_params(model)
            self.client.reset_prefix_cache()
            self._sent = request.version
        sampling = request.sampling
        size = sampling.batch or len(request.prompts)
        made: list[list[int]] = []
        for start in range(0, len(request.prompts), size):
            output = self.client.generate(
                [list(prompt) for prompt in request.prompts[start : start + size]],
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_tokens=sampling.max_new_tokens,
                logprobs=None,
                generation_kwargs={"seed": request.seed % 2**31 + start, "stop_token_ids": list(sampling.stop_ids)},
            )
            made += output["completion_ids"]
        return made


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
