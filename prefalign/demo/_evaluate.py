"""What the demo measures on held-out pairs: log-probabilities, and which side a margin is on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float64]


def sides(margins: Floats) -> Floats:
    """1 where a margin is positive, 0 where it is negative; zero is no opinion and counts one half.

    Example:
        >>> sides(np.array([2.0, -1.0, 0.0])).tolist()
        [1.0, 0.0, 0.5]
    """
    return np.asarray((margins > 0) + 0.5 * (margins == 0))


@torch.no_grad()
def summed_logps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    completions: Sequence[str],
    batch: int = 16,
    progress: str | None = None,
) -> list[float]:
    """log pi(completion and end of text | prompt) of each pair of texts, in nats, summed over tokens.

    The completion's tokens are what follows the prompt's tokens in the tokenised whole, as in TRL.
    """
    values: list[float] = []
    end = [tokenizer.eos_token_id]
    with tqdm(total=len(prompts), desc=progress, disable=progress is None, unit="text") as bar:
        for start in range(0, len(prompts), batch):
            heads = [tokenizer(text)["input_ids"] for text in prompts[start : start + batch]]
            wholes = [
                tokenizer(prompt + completion)["input_ids"] + end
                for prompt, completion in zip(
                    prompts[start : start + batch], completions[start : start + batch], strict=True
                )
            ]
            width = max(map(len, wholes))
            ids = torch.tensor([whole + [tokenizer.pad_token_id] * (width - len(whole)) for whole in wholes])
            inside = torch.tensor(
                [
                    [len(head) <= position < len(whole) for position in range(1, width)]
                    for head, whole in zip(heads, wholes, strict=True)
                ]
            )
            ids = ids.to(model.device)
            real = torch.tensor([[1] * len(whole) + [0] * (width - len(whole)) for whole in wholes]).to(model.device)
            logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits[:, :-1].float()
            logps = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
            values += (logps * inside.to(logps.device)).sum(-1).tolist()
            bar.update(len(wholes))
    return values
