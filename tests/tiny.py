"""Tiny random models and a byte-level tokenizer, built from nothing, so that fast tests need no download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer (259 tokens) with ChatML's template; any text round-trips."""
    vocabulary = {token: index for index, token in enumerate(SPECIAL)}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(seed: int = 0, **overrides: Any) -> torch.nn.Module:
    """A random two-layer Llama with 16 hidden units over `tiny_tokenizer`'s vocabulary, in float32."""
    settings = {
        "vocab_size": len(SPECIAL) + 256,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(LlamaConfig(**{**settings, **overrides}), dtype=torch.float32)


def save_tiny(folder: Path, seed: int = 0, **overrides: Any) -> Path:
    """A checkpoint directory with `tiny_model` and `tiny_tokenizer`."""
    tiny_model(seed, **overrides).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_pairs(count: int = 24) -> Dataset:
    """Plain `prompt`/`chosen`/`rejected` rows of uneven lengths."""
    words = ["good", "fine", "dull", "bad", "slow", "bright", "odd", "long"]
    return Dataset.from_list(
        [
            {
                "prompt": f"Film {i}:",
                "chosen": " " + " ".join(words[(i + j) % 8] for j in range(1 + i % 4)),
                "rejected": " " + " ".join(words[(i + 3 * j + 5) % 8] for j in range(1 + (i + 2) % 5)),
            }
            for i in range(count)
        ]
    )
