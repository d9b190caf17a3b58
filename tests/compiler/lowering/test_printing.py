"""How a reading prints: every symbol in it has its value beside it."""

from __future__ import annotations

from prefalign import derive
from prefalign.losses import DPO, SFT, Robust


def test_a_sum_says_what_its_weights_are():
    said = str(derive(DPO(beta=0.1) + 0.005 * SFT(reduction="sum"))).splitlines()
    assert said[0].startswith("DPO(beta=0.1)")
    assert said[2].startswith("+ (c_2) * ")
    assert said[3] == "  where beta = 0.1, c_2 = 0.005"


def test_one_rule_says_its_values_on_its_line():
    said = repr(derive(Robust(DPO(beta=0.1), flip_rate=0.2)))
    assert "\n" not in said
    assert said.endswith("with rho = log(rl*w/(l*rw)), where beta = 0.1, flip_rate = 0.2")


def test_without_hyperparameters_nothing_is_added():
    def plain(chosen_logps, rejected_logps):
        return -(chosen_logps - rejected_logps).sigmoid().log()

    assert "where" not in str(derive(plain))
