"""A soup is a standard checkpoint: TRL's trainers of other methods take it by its folder."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from prefalign.references import soup
from tests.references.models import load_tensors, two_models

SETTINGS = {
    "max_steps": 1,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 4,
    "learning_rate": 1e-2,
    "beta": 0.1,  # above 0, so that the soup is loaded as the reference, too
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 1,
    "bf16": False,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # what TRL says of its own options
@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_trls_online_trainers_train_a_soup(tmp_path, trainer, config):
    made = soup(two_models(tmp_path), out=tmp_path / "soup", progress=False)
    before = load_tensors(made.out)

    def reward(completions: list[str], **_: object) -> list[float]:
        return [float(place % 2) for place in range(len(completions))]

    args = config(str(tmp_path / "run"), **SETTINGS)
    data = Dataset.from_list([{"prompt": f"Film {number}:"} for number in range(4)])
    run = trainer(model=str(made.out), reward_funcs=reward, args=args, train_dataset=data)
    loaded = {name: value.detach().clone() for name, value in run.model.named_parameters()}
    assert all(torch.equal(loaded[name], value) for name, value in before.items() if name in loaded)
    run.train()
    assert run.state.global_step == 1
    assert any(not torch.equal(loaded[name], value) for name, value in run.model.named_parameters())
    assert all(torch.isfinite(value).all() for value in run.model.parameters())
