"""Sampling continuations of review openings and scoring them with VADER."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

from .._errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def load_model(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32, on the accelerator if there is one, and its tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()
    return model, AutoTokenizer.from_pretrained(path)


def whole_sentences(text: str) -> str:
    """The first paragraph of `text` up to its last finished sentence; the whole paragraph if none is finished.

    Example:
        >>> whole_sentences(" was fine. The rest was")
        ' was fine.'
    """
    paragraph = text.split("\n", 1)[0]
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)]
    return paragraph[: ends[-1]] if ends else paragraph.rstrip()


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    seed: int,
    batch: int = 64,
    progress: str | None = None,
) -> list[str]:
    """One continuation per prompt, cut to whole sentences.

    Args:
        model: A causal language model, in evaluation mode.
        tokenizer: Its tokenizer; padding goes to the left here whatever it says.
        prompts: Texts to continue; repeat one to get several samples of it.
        seed: Fixes every sample, given the batch size.
        batch: Sequences sampled at once.
        progress: Title of the progress bar; None shows none.
    """
    texts: list[str] = []
    torch.manual_seed(seed)
    with tqdm(total=len(prompts), desc=progress, disable=progress is None, unit="text") as bar:
        for start in range(0, len(prompts), batch):
            part = list(prompts[start : start + batch])
            inputs = tokenizer(part, return_tensors="pt", padding=True, padding_side="left").to(model.device)
            output = model.generate(**inputs, **SAMPLING, pad_token_id=tokenizer.pad_token_id)
            new = output[:, inputs["input_ids"].shape[1] :]
            texts += [whole_sentences(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
            bar.update(len(part))
    return texts


def gold_rewards(texts: Sequence[str]) -> list[float]:
    """VADER's compound score of each text, from -1 (most negative) to 1 (most positive).

    Raises:
        ConfigError: vaderSentiment is not installed.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ConfigError("the gold reward needs vaderSentiment: `pip install vaderSentiment`.") from error
    analyzer = SentimentIntensityAnalyzer()
    return [float(analyzer.polarity_scores(text)["compound"]) for text in texts]


# One sampler for the data and for the measurements: what is trained on is what is measured.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "max_new_tokens": 32}
