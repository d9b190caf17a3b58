"""Tiny models of many families, and batches of pairs, for the shared-prefix forward."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
WINDOW = {"sliding_window": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_local_experts": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "mistral": {**WINDOW, "head_dim": 8},
    "gemma": {"head_dim": 8},
    "gemma2": {**WINDOW, "head_dim": 8},
    "gemma3_text": {**WINDOW, "head_dim": 8},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "resid_pdrop": 0, "attn_pdrop": 0, "embd_pdrop": 0},
    "phi": {"resid_pdrop": 0, "embd_pdrop": 0},
    "phi3": {**WINDOW, "pad_token_id": 0, "resid_pdrop": 0},
    "olmo": {},
    "olmo2": {},
    "olmo3": WINDOW,
    "cohere2": {**WINDOW, "head_dim": 8},
    "gpt_oss": {**WINDOW, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "mixtral": {**WINDOW, "num_local_experts": 2},
    "smollm3": {"pad_token_id": 0},
    "granite": {},
    "glm4": {"head_dim": 8, "pad_token_id": 0},
    "starcoder2": {**WINDOW, "residual_dropout": 0, "embedding_dropout": 0},
    "gpt_neox": {"hidden_dropout": 0, "attention_dropout": 0},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3_moe": {**EXPERTS, "head_dim": 8},
    "olmoe": {**EXPERTS, "pad_token_id": 0},
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4, "v_head_dim": 8, "num_key_value_heads": 2,
    },
}  # fmt: skip


def make_model(family: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> torch.nn.Module:
    """A random two-layer model with TRL's fused head."""
    settings = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 128,
        "bos_token_id": None,
        "eos_token_id": 1,
    }
    config = AutoConfig.for_model(family, **{**settings, **FAMILIES.get(family, {}), **overrides})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for parameter in model.parameters():
        if parameter.dim() > 1:  # the default start is so small that a wrong mask would hardly show
            torch.nn.init.normal_(parameter, std=0.3)
    add_fused_lm_head(model, outputs=OUTPUTS)
    return model


def make_batch(pairs: list[tuple[list[int], list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """TRL's layout of (prompt, chosen, rejected) token lists: chosen rows first, padded on the right."""
    rows = [(p, c) for p, c, _ in pairs] + [(p, r) for p, _, r in pairs]
    width = max(len(p) + len(c) for p, c in rows)
    batch = {
        "input_ids": torch.zeros(len(rows), width, dtype=torch.long),
        "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
        "labels": torch.full((len(rows), width), -100),
    }
    for i, (prompt, completion) in enumerate(rows):
        ids = torch.tensor(prompt + completion)
        batch["input_ids"][i, : len(ids)] = ids
        batch["attention_mask"][i, : len(ids)] = 1
        batch["labels"][i, len(prompt) : len(ids)] = ids[len(prompt) :]
    return batch


# A common start of the completions; a prompt of one token; identical completions; completions of one token.
RAGGED = make_batch(
    [
        ([5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18, 19, 20], [12, 13, 21]),
        ([5], [6, 7], [8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]),
        ([30, 31, 32], [33, 34, 35, 36], [33, 34, 35, 36]),
        ([40, 41], [42], [43]),
    ]
)


def run(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> tuple[Any, list[torch.Tensor]]:
    """Forward and backward of DPO's loss on the policy alone, with a little of the entropy: (outputs, gradients)."""
    model.zero_grad(set_to_none=True)
    output = model(**batch, fused_lm_head=True, use_cache=False)
    chosen, rejected = output.log_probs.sum(1).chunk(2)
    (-torch.nn.functional.logsigmoid(chosen - rejected).sum() + 0.01 * output.entropy.sum()).backward()
    return output, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two gradients; 1 where both are zero."""
    x, y = a.double().flatten(), b.double().flatten()
    if not x.any() and not y.any():
        return 1.0
    return float(x @ y / (x.norm() * y.norm()))
