"""The shared prefix on a real model, SmolLM2-135M: as in TRL's trainer, loss and every gradient, full and LoRA."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from prefalign.train.forward._shared_prefix import install
from tests.train.packed import OUTPUTS, cosine, make_batch


def loss_of(model, batch):
    model.zero_grad(set_to_none=True)
    chosen, rejected = model(**batch, fused_lm_head=True, use_cache=False).log_probs.sum(1).chunk(2)
    loss = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_smollm2_gives_the_plain_forwards_loss_and_gradients(smollm2, adapter):
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    add_fused_lm_head(model, outputs=OUTPUTS)
    if adapter:
        torch.manual_seed(0)
        model = get_peft_model(model, LoraConfig(r=8, task_type="CAUSAL_LM", init_lora_weights=False))
    words = torch.Generator().manual_seed(1)
    start, chosen, rejected, other = (torch.randint(10, 40000, (n,), generator=words).tolist() for n in (40, 30, 17, 9))
    # Unlike lengths, a common start of the completions, a prompt of one token.
    batch = make_batch([(start, chosen, chosen[:4] + rejected), (start[:1], other, rejected)])
    plain, plain_gradients = loss_of(model, batch)
    forward = install(model)
    packed, gradients = loss_of(model, batch)
    assert forward.active
    assert forward.packed_tokens == (40 + 30 + 17) + (1 + 9 + 17)
    assert packed == pytest.approx(plain, rel=1e-5)
    assert gradients.keys() == plain_gradients.keys()
    assert min(cosine(gradients[name], plain_gradients[name]) for name in gradients) > 0.99999
