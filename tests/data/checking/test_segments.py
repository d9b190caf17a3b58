"""Conversations that are tokenised piece by piece get the ids that the tokenizer's own call gives."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefalign.data.checking._segments import Pieces
from tests.data.rows import merging_tokenizer
from tests.tiny import tiny_tokenizer


def metaspace(scheme):
    """As in Llama's tokenizers: a sign for the space, put before the first text or before every one."""
    vocabulary = {"<unk>": 0, "▁": 1} | {letter: number for number, letter in enumerate("go <|im_start|>end", 2)}
    vocabulary |= {"▁g": 90}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "g")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def with_token(*tokens):
    tokenizer = merging_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(tokens)})
    return tokenizer


def lowering():
    """Of which a token is found in normalised text."""
    tokenizer = merging_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<|Mark|>", normalized=True, special=True)])
    return tokenizer


TOKENIZERS = {
    "bytes": tiny_tokenizer(),
    "merging": merging_tokenizer(bos="<s>"),
    "first": metaspace("first"),
    "always": metaspace("always"),
    "takes the space before it": with_token(AddedToken("<|im_start|>", lstrip=True, special=True)),
    "takes the space behind it": with_token(AddedToken("<|im_start|>", rstrip=True, special=True)),
    "one token in another": with_token("<|im_start|>", "<<|im_start|>>", "start|>"),
    "normalised": lowering(),
}
PARTS = st.sampled_from(
    [
        *(" ", "\n", "g", " g", "go", "  ", "é", "\ud7ff", "<", "|>", "<|", "start|>", "<s>", "<<|im_start|>>"),
        *("<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<|im_end|>\n", "<|endoftext|>", "<|Mark|>", "<|mark|>"),
    ]
)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(st.lists(PARTS, max_size=12).map("".join), max_size=4))
def test_the_pieces_of_a_text_have_its_ids(name, texts):
    tokenizer = TOKENIZERS[name]
    expected = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert Pieces(tokenizer).encode(texts) == expected


def test_a_piece_that_returns_is_tokenised_once(monkeypatch):
    tokenizer, seen = tiny_tokenizer(), []

    class Engine:
        def get_added_tokens_decoder(self):
            return tokenizer.backend_tokenizer.get_added_tokens_decoder()

        def encode_batch_fast(self, texts, **options):
            seen.extend(texts)
            return tokenizer.backend_tokenizer.encode_batch_fast(texts, **options)

    start, end = "<|im_start|>", "<|im_end|>"
    prompt = f"{start}user\nq{end}\n{start}assistant\n"
    Pieces(type("Told", (), {"backend_tokenizer": Engine()})()).encode([prompt, f"{prompt}a{end}", f"{prompt}b{end}"])
    assert sorted(seen) == sorted(
        ["", f"{start}user\nq", f"{end}\n", f"{start}assistant\n", f"{start}assistant\na", end, f"{start}assistant\nb"]
    )
