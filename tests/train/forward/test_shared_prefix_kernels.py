"""How a packed row is attended to: which library call is chosen, and that it is asked the right thing.

The kernels themselves need a GPU. Here their calls are answered by reference attentions that read the same arguments.
"""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import flex_attention, varlen
from transformers.integrations import flex_attention as integration
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from prefalign.train.forward import _attention
from prefalign.train.forward._plan import plan_pairs
from prefalign.train.forward._shared_prefix import install
from tests.train.packed import RAGGED, make_batch, make_model, run

HALF = torch.bfloat16


def query(device="cuda", dtype=HALF, channels=64):
    return SimpleNamespace(device=torch.device(device), dtype=dtype, shape=(1, 2, 5, channels))


@pytest.mark.parametrize(
    ("base", "tensor", "options", "way"),
    [
        ("flash_attention_2", query(), {}, "varlen"),
        ("flash_attention_3", query(), {"softcap": 30.0}, "varlen"),
        ("flex_attention", query(), {}, "flex"),
        ("sdpa", query(), {}, "torch_varlen"),
        ("sdpa", query(dtype=torch.float16), {"sliding_window": 8}, "torch_varlen"),
        ("sdpa", query(dtype=torch.float32), {}, "streams"),
        ("sdpa", query(channels=63), {}, "streams"),
        ("sdpa", query(channels=320), {}, "streams"),
        ("sdpa", query(device="cpu"), {}, "streams"),
        ("sdpa", query(), {"position_bias": 1}, "streams"),
        ("eager", query(), {}, "streams"),
    ],
)
def test_the_call_fits_the_implementation_the_device_and_the_dtype(base, tensor, options, way, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert _attention.way_of(base, tensor, options) == way


def test_an_older_gpu_attends_sequence_by_sequence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert _attention.way_of("sdpa", query(), {}) == "streams"


def sequences(q, k, v, ends_q, ends_k, window, scale):
    """Varlen attention by its definition: (T, H, D) tensors, causal from the lower right."""
    outputs = []
    for (a, b), (c, d) in zip(pairwise(ends_q), pairwise(ends_k), strict=True):
        n, m = b - a, d - c
        distance = torch.arange(n)[:, None] + m - n - torch.arange(m)[None]
        allowed = (distance >= 0) & (distance <= (window if window >= 0 else m))
        heads = q.shape[1] // k.shape[1]
        keys, values = (t[c:d].repeat_interleave(heads, 1).transpose(0, 1) for t in (k, v))
        scores = (q[a:b].transpose(0, 1) @ keys.transpose(1, 2)) * scale
        outputs.append((scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values).transpose(0, 1))
    return torch.cat(outputs)


def compare(family, base, monkeypatch, way=None, backward=True):
    model = make_model(family)
    plain, plain_gradients = run(model, RAGGED)
    other = make_model(family)
    other.config._attn_implementation = base
    if way is not None:
        monkeypatch.setattr(_attention, "way_of", lambda *_: way)
    forward = install(other)
    if not backward:
        forward.checked = {(False, other.training, None)}  # the plain forward of FlexAttention compiles its mask
        with torch.no_grad():
            packed = other(**RAGGED, fused_lm_head=True, use_cache=False)
    else:
        packed, gradients = run(other, RAGGED)
        for ours, theirs in zip(gradients, plain_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-4)
    assert forward.active
    torch.testing.assert_close(packed.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_flash_attention_is_given_the_cumulative_lengths(family, monkeypatch):
    """FlashAttention through transformers: the arguments of its `flash_attention_forward`."""
    calls = []

    def flash(module, q, k, v, mask, scaling=None, sliding_window=None, cu_seq_lens_q=None, **rest):
        if cu_seq_lens_q is None:  # the plain forward of the self-check
            return ALL_ATTENTION_FUNCTIONS["sdpa"](module, q, k, v, mask, scaling=scaling, **rest)
        assert mask is None
        calls.append((rest["max_length_q"], rest["max_length_k"]))
        assert cu_seq_lens_q.dtype == rest["cu_seq_lens_k"].dtype == torch.int32
        window = -1 if sliding_window is None else sliding_window - 1
        parts = (t[0].transpose(0, 1) for t in (q, k, v))
        ends = (cu_seq_lens_q.tolist(), rest["cu_seq_lens_k"].tolist())
        return sequences(*parts, *ends, window, scaling)[None], None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_fake", flash)
    sdpa_mask = ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_MASK_ATTENTION_FUNCTIONS._local_mapping, "flash_attention_fake", sdpa_mask)
    compare(family, "flash_attention_fake", monkeypatch)
    # Two layers, one call each; the longest of RAGGED's sequences has 16 tokens.
    assert calls == [(16, 16)] * 2


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_pytorchs_varlen_attention_is_given_the_cumulative_lengths(family, monkeypatch):
    calls = []

    def kernel(q, k, v, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):
        calls.append((max_q, max_k, window_size, enable_gqa))
        return sequences(q, k, v, cu_q.tolist(), cu_k.tolist(), window_size[0], scale)

    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    compare(family, "sdpa", monkeypatch, way="torch_varlen")
    window = (7, 0) if family == "mistral" else (-1, 0)
    assert calls == [(16, 16, window, True)] * 2


@pytest.mark.parametrize("window", [None, 3])
def test_the_block_mask_is_the_logical_sequences(window):
    # Packed row: "1 2 3 4", "5" (rejected after "1 2"), then "6 7".
    plan = plan_pairs(**make_batch([([1, 2], [3, 4], [5]), ([6], [7], [7])]))
    mask = _attention._block_mask(plan, window)
    rows = ["1000000", "1100000", "1110000", "1111000", "1100100", "0000010", "0000011"]
    if window == 3:
        rows[3] = "0111000"
    expected = torch.tensor([[bit == "1" for bit in row] for row in rows])
    places = torch.arange(7)
    assert torch.equal(mask.mask_mod(0, 0, places[:, None], places[None, :]), expected)


@pytest.mark.parametrize("family", ["llama", "mistral"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")  # on purpose
def test_flex_attention_gives_the_plain_numbers(family, monkeypatch):
    """PyTorch's own FlexAttention, not compiled; on a CPU it has no backward pass."""

    def call(query, key, value, training=False, **options):
        return flex_attention.flex_attention(query, key, value, **options)

    monkeypatch.setattr(integration, "compile_friendly_flex_attention", call)
    compare(family, "flex_attention", monkeypatch, backward=False)
