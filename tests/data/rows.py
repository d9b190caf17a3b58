"""Pairs, conversations and a tokenizer with one merge, for the tests of the preflight."""

from __future__ import annotations

from types import SimpleNamespace

from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from trl import DPOTrainer

from tests.tiny import SPECIAL

EOS = "<|im_end|>"


def pairs_of(*rows, names=("prompt", "chosen", "rejected")):
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})


def chats_of(*rows):
    roles = ("user", "assistant", "assistant")
    return pairs_of(
        *[tuple([{"role": role, "content": text}] for role, text in zip(roles, row, strict=True)) for row in rows]
    )


def found(report):
    """Kind -> rows, of all findings that name rows."""
    return {finding.kind: list(finding.rows) for finding in report.findings}


def merging_tokenizer(bos=None, eos_added=False):
    """Byte-level, with one merge across the space: " g" is one token."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, "<s>"])}
    for byte in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[byte] = len(vocabulary)
    vocabulary["Ġg"] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ġ", "g")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        end = f" {EOS}" if eos_added else ""
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A{end}", special_tokens=[(token, vocabulary[token]) for token in (bos, EOS)]
        )
    extra = {"bos_token": bos} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, pad_token="<|endoftext|>", **extra)


def prepared_by_trl(pairs, tokenizer, max_length=None, truncation_mode="keep_start"):
    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode=truncation_mode)
    this = SimpleNamespace(_tokenizer=tokenizer)
    return DPOTrainer._prepare_dataset(this, pairs, tokenizer, args, "train")
