"""`prefalign explain` and `prefalign generate`, as a user types them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from prefalign.cli import main


def test_explain_prints_a_page_and_json(capsys):
    assert main(["explain", "cpo"]) == 0
    assert "Displacement is possible" in capsys.readouterr().out
    assert main(["explain", "w*(1-l)/(l*(1-w))", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["rules"][0]
    assert said["rows"] == "ovxo"
    assert said["known"][0] == "ORPO"


def test_derive_shows_a_column_that_has_no_bottom(capsys):
    assert main(["derive", "vvvo"]) == 0
    assert "infinite or undefined" in capsys.readouterr().out


def test_explain_reads_a_function_in_a_file(tmp_path, capsys):
    file = tmp_path / "losses.py"
    file.write_text(
        "import torch.nn.functional as F\n"
        "def mine(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):\n"
        "    return -F.logsigmoid(beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))\n"
    )
    assert main(["explain", f"{file}:mine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["rules"][0]
    assert said["P"] == "(M(l) & R(w)) -> (M(w) & R(l))"
    assert "DPO" in said["known"]


def test_explain_reads_a_loss_expression(capsys):
    assert main(["explain", "dpo(beta=0.1)"]) == 0
    assert "Known as DPO" in capsys.readouterr().out


def test_explain_says_what_the_code_of_a_loss_does_beside_its_logic(tmp_path, capsys):
    file = tmp_path / "losses.py"
    file.write_text(
        "import torch.nn.functional as F\n"
        "def mine(chosen_logps, rejected_logps, chosen_len, rejected_len, beta=2.0):\n"
        "    weight = (chosen_logps / chosen_len).exp().detach()\n"
        "    return (weight * F.softplus(-beta * (chosen_logps / chosen_len - rejected_logps / rejected_len))).mean()\n"
    )
    assert main(["explain", f"{file}:mine"]) == 0
    page, _, code = capsys.readouterr().out.partition("\nAs code\n-------\n\n")
    assert "Known as CPO" in page
    assert "- w is the policy's probability of the chosen answer, means over tokens.\n" in code
    assert "- Read with beta = 2.\n" in code
    assert "- Over a batch the code takes the mean of this.\n" in code
    assert "detached: it changes the loss's value and weights its gradient" in code
    assert main(["explain", f"{file}:mine", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["hyperparameters"] == {"beta": 2.0}
    assert said["batch"] == ["mean"]
    assert said["meanings"] == [{"w": "W/n_w", "l": "L/n_l"}]
    assert [f"- {remark}" for remark in said["remarks"]] == code.splitlines()


def test_explain_gives_the_weight_of_a_term_its_value(capsys):
    assert main(["explain", "dpo(beta=0.1) + 0.005*sft(reduction='sum')"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("DPO(beta=0.1) + 0.005*SFT(reduction='sum')\n")
    assert "- Read with beta = 0.1, c_2 = 0.005." in out
    assert main(["explain", "cpo"]) == 0
    assert "As code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "w^2/l"], "copied variable"),
        (["explain", "dpo(betta=0.1)"], "`betta`"),
        (["generate", "betwen cpo and ce"], "Did you mean `between`"),
        (["generate", "above unCPO; row TF = x"], "contradict each other"),
        (["generate", "monotone", "--by", "beauty"], "`by` must be among"),
        (["generate", "missing.yaml"], "cannot be read"),
    ],
)
def test_what_cannot_be_read_exits_with_two_and_the_reason(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_generate_counts_lists_and_prints_json(capsys, tmp_path):
    text = "between cpo and unCPO; monotone; max literals 6"
    assert main(["generate", text, "--count"]) == 0
    assert capsys.readouterr().out.strip() == "4"
    assert main(["generate", text, "--top", "2", "--near", "cpo"]) == 0
    out = capsys.readouterr().out
    assert "unCPO" in out
    assert "2 of 4 that satisfy" in out
    file = tmp_path / "spec.yaml"
    file.write_text("between: [cpo, unCPO]\n")
    assert main(["generate", str(file), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["count"] == 4
    assert [one["rows"] for one in said["structures"]] == ["vvxv", "vvxo", "bvxv", "bvxo"]


def test_generate_draws_samples_reproducibly(capsys):
    words = ["generate", "reference; nontrivial", "--sample", "--top", "3", "--seed", "7", "--json"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert main(words) == 0
    assert capsys.readouterr().out == first


def test_neither_loads_torch_for_a_name():
    code = (
        "import sys; from prefalign.cli import main; main(['explain', 'cpo']); main(['generate', 'monotone']); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("command", ["explain", "derive"])
def test_roles_say_what_names_mean(command, tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n\n\ndef mine(chosen_logps, other_logps):\n"
        "    return torch.nn.functional.softplus(other_logps - chosen_logps).mean()\n"
    )
    assert main([command, f"{file}:mine"]) == 2
    assert "--roles other_logps=l" in capsys.readouterr().err
    assert main([command, f"{file}:mine", "--roles", "other_logps=l"]) == 0
    assert "log(" in capsys.readouterr().out
    assert main([command, f"{file}:mine", "--roles", "other_logps"]) == 2
    assert "NAME=ROLE" in capsys.readouterr().err
