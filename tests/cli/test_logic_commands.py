"""derive, compare and lattice on the command line."""

import json

import pytest

from prefalign.cli import main


def test_derive_prints_the_structure_of_an_equation(capsys):
    assert main(["derive", "w*(1-l)/(l*(1-w))"]) == 0
    out = capsys.readouterr().out
    assert "P           M(l) → M(w)" in out
    assert "rows        ovxo" in out
    assert "known as    ORPO" in out


def test_derive_prints_every_rule_of_a_named_loss_and_its_note(capsys):
    assert main(["derive", "KTO"]) == 0
    out = capsys.readouterr().out
    assert "rule 1: " in out
    assert "rule 2: " in out
    assert "2402.01306" in out
    assert "Note: unpaired" in out


def test_derive_as_json(capsys):
    assert main(["derive", "rpo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "RPO"
    assert [rule["weight"] for rule in found["rules"]] == ["1", "beta*eta"]
    assert main(["derive", "w/l", "--json"]) == 0
    (rule,) = json.loads(capsys.readouterr().out)["rules"]
    assert (rule["rows"], rule["P"], rule["name"]) == ("bvxo", "M(l) -> M(w)", "CPO")
    assert "link" not in rule


def test_derive_takes_the_reference_form_and_latex(capsys):
    assert main(["derive", "cpo", "--reference", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"][0]["name"] == "DPO"
    assert main(["derive", "ce", "--latex"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == r"P = \mathrm{M}(y_w)"


def test_a_refusal_goes_to_stderr_with_exit_code_2(capsys):
    assert main(["derive", "w**2/l"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "to the power 2" in captured.err
    assert main(["derive", "w //l"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "       ^"


def test_compare_prints_and_dumps_the_matrix(capsys):
    assert main(["compare", "dpo", "orpo-ref", "ccpo-ref"]) == 0
    assert "DPO       ≡    ∥         ⊏" in capsys.readouterr().out
    assert main(["compare", "cpo", "ipo", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == ["CPO", "IPO"]
    assert found["relations"][0] == ["equivalent", "incomparable"]
    assert main(["compare", "dpo"]) == 2


def test_lattice_draws_all_sixteen(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    path = tmp_path / "lattice.svg"
    assert main(["lattice", "--all", "-o", str(path)]) == 0
    assert path.read_text("utf-8").startswith("<?xml")
    assert "16 structures, 32 edges" in capsys.readouterr().out


def test_lattice_as_text_mermaid_and_json(capsys):
    assert main(["lattice", "orpo", "ccpo"]) == 0
    assert capsys.readouterr().out == "1  cCPO\n0  ORPO ⊏ cCPO\n"
    assert main(["lattice", "orpo", "ccpo", "--mermaid"]) == 0
    assert "n0 --> n1" in capsys.readouterr().out
    assert main(["lattice", "--all", "--reference", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["edges"]) == 32
    assert found["nodes"]["unCPO-ref"]["rank"] == 4


@pytest.mark.parametrize(("words", "says"), [([], "--all"), (["cpo", "--title", "x"], "--output")])
def test_lattice_refuses_what_would_have_no_effect(words, says, capsys):
    assert main(["lattice", *words]) == 2
    assert says in capsys.readouterr().err


CODE = """
import torch.nn.functional as F


def margin(chosen, rejected, ref_chosen, ref_rejected, beta=0.1):
    return F.relu(1 - beta * ((chosen - ref_chosen) - (rejected - ref_rejected)))
"""


def test_loss_expressions_and_functions_are_read_too(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(CODE, "utf-8")
    target = f"{tmp_path / 'mine.py'}:margin"
    for loss in ("ipo(beta=0.2)", target):
        assert main(["derive", loss, "--json"]) == 0
        (rule,) = json.loads(capsys.readouterr().out)["rules"]
        assert rule["name"] == "DPO"
        assert "rho" in rule["link"]
    assert main(["compare", "dpo", "dpo(beta=0.1)", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == ["DPO", "dpo(beta=0.1)", target]
    assert found["relations"][0] == ["equivalent"] * 3
    assert main(["lattice", "dpo", "ccpo-ref", target]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1  cCPO-ref"


@pytest.mark.parametrize(
    ("loss", "says"),
    [("dpo(betta=1)", "Did you mean `beta`"), ("w*(1-q)", "`q` is not a probability"), ("no.py:f", "no.py")],
)
def test_the_error_of_the_right_reader_is_shown(loss, says, capsys):
    assert main(["derive", loss]) == 2
    assert says in capsys.readouterr().err
