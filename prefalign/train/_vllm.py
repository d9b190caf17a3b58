"""A generator that a vLLM server works for, through TRL's own client."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .._errors import ConfigError
from .generation import Request


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
