"""Public losses: none is read wrongly, nearly all that are log ratios are read, and what comes out is what is known."""

from __future__ import annotations

import inspect
import re
import time
import warnings

import numpy as np
import pytest
import sympy as sp

import prefalign.losses
from prefalign import derive
from prefalign._errors import DerivationError
from prefalign.logic import catalogue, same_ratio
from prefalign.losses import Loss, SimPO

from .loss_table import PAGE, attempt, page, read
from .public import LIGER, PUBLIC


def every(public):
    return f"{public.library}: {public.name}"


@pytest.mark.parametrize("public", PUBLIC, ids=every)
def test_a_public_loss_is_derived_or_refused_with_its_reason(public):
    if public.refused:
        with pytest.raises(DerivationError, match=public.refused):
            read(public)
    else:
        assert read(public).rules


WITHOUT_LIGER = pytest.mark.skipif(not LIGER, reason="liger-kernel is not installed: `pip install --no-deps` it")


@WITHOUT_LIGER
def test_every_loss_of_pairs_of_liger_kernel_is_among_them():
    from liger_kernel.chunked_loss import dpo_loss

    code = inspect.getsource(dpo_loss.LigerFusedLinearDPOFunction.preference_loss_fn)
    types = set(re.findall(r'loss_type == "(\w+)"', code)) - {"ipo"}  # its ipo raises: not supported
    assert len(types) == 10
    assert {f"dpo {kind}" for kind in types} | {"cpo", "simpo", "orpo, odds term", "kto"} == {p.name for p in LIGER}


@pytest.mark.parametrize("public", LIGER, ids=every)
def test_the_losses_of_liger_kernel_are_the_same_rules_as_trls(public):
    # Liger's chunked losses are rewritten, not called, from TRL's: two codes, one reading.
    ours = read(public)
    library, name = LIGER_IN_TRL.get(public.name, ("trl DPOTrainer", public.name.removeprefix("dpo ")))
    theirs = read(BY_KEY[library, name])
    # TRL's CPO and ORPO trainers add the likelihood of the chosen answer, which liger's forward adds elsewhere.
    assert len(theirs.rules) - len(ours.rules) == (public.name in ("simpo", "orpo, odds term"))
    numbers = {"beta": 0.1, "label_smoothing": 0.1, "gamma": 0.5, "simpo_gamma": 0.5, "kl": 0.25, "discopop_tau": 0.05}
    numbers |= {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    for mine, other in zip(ours.rules, theirs.rules, strict=False):
        assert same_ratio(mine.structure, other.structure)
        assert mine.link.direction == other.link.direction
        np.testing.assert_allclose(heights(mine, numbers), heights(other, numbers), rtol=1e-9)


def test_every_loss_of_this_library_is_among_them():
    known = {type(public.given.get("self")) for public in PUBLIC}
    for value in vars(prefalign.losses).values():
        if isinstance(value, type) and issubclass(value, Loss) and not inspect.isabstract(value):
            assert value in known, value


def test_every_loss_type_of_trl_is_among_them():
    from trl import DPOTrainer

    code = inspect.getsource(DPOTrainer._compute_loss)
    types = set(re.findall(r'loss_type == "(\w+)"', code)) | set(re.findall(r'f_divergence_type == "(\w+)"', code))
    assert len(types) > 15
    named = " ".join(public.name for public in PUBLIC if public.library == "trl DPOTrainer")
    assert all(kind in named or kind == "reverse_kl" for kind in types)


def test_nine_in_ten_of_the_log_ratios_are_derived():
    ratios = [public for public in (*PUBLIC, *LIGER) if public.log_ratio]
    assert len([p for p in ratios if not p.refused]) >= 0.9 * len(ratios)


def test_the_whole_set_takes_less_than_ten_seconds_of_one_core():
    start = time.process_time()
    for public in (*PUBLIC, *LIGER):
        attempt(public)
    assert time.process_time() - start < 10


@WITHOUT_LIGER
def test_the_table_in_the_docs_is_current():
    assert PAGE.read_text("utf-8") == page()


# --- against the catalogue, whose entries come from the papers ---

# Public loss -> its catalogue entry, and the entry's parameters in the code's names (or in numbers).
SAME = {
    ("prefalign", "DPO(beta=0.1)"): ("dpo", {}),
    ("prefalign", "IPO(beta=0.1)"): ("ipo", {}),
    ("prefalign", "EXO(beta=0.1, label_smoothing=0.01)"): ("exo", {"epsilon": "label_smoothing"}),
    ("prefalign", "DiscoPOP(beta=0.1)"): ("discopop", {}),
    ("prefalign", "BCO(beta=0.1, shift=0.5)"): ("bco", {"delta": "shift"}),
    ("prefalign", "NCA(beta=0.1)"): ("nca", {}),
    ("prefalign", "SPPO(beta=0.1)"): ("sppo", {}),
    ("prefalign", "RDPO(beta=0.1, alpha=0.02)"): ("r-dpo", {}),
    ("prefalign", "FocalPO(beta=0.1, gamma=0.5)"): ("focalpo", {}),
    ("prefalign", "CalDPO(beta=0.5)"): ("cal-dpo", {}),
    ("prefalign", "SimPER()"): ("simper", {}),
    ("prefalign", "RankHinge(delta=1.5, mean=True)"): ("repo", {"beta": "delta"}),
    ("prefalign", "APOZero(beta=0.1)"): ("apo-zero", {}),
    ("prefalign", "APODown(beta=0.1)"): ("apo-down", {}),
    ("prefalign", "RankHinge(delta=1.5)"): ("slic", {"beta": "delta"}),
    ("prefalign", "SLiCHF(delta=1.5, regulariser=0.4)"): ("slic-hf", {"beta": "delta", "eta": "regulariser"}),
    ("prefalign", "RPO(beta=0.1, eta=0.5, reduction='sum')"): ("rpo", {}),
    ("prefalign", "Smoothed(DPO(beta=0.1), flip_rate=0.2)"): ("cdpo", {"epsilon": "flip_rate"}),
    ("prefalign", "SePPO(beta=0.1)"): ("seppo", {}),
    ("trl DPOTrainer", "sigmoid"): ("dpo", {}),
    ("trl DPOTrainer", "ipo"): ("ipo", {}),
    ("trl DPOTrainer", "exo_pair"): ("exo", {"epsilon": "label_smoothing"}),
    ("trl DPOTrainer", "nca_pair"): ("nca", {}),
    ("trl DPOTrainer", "sppo_hard"): ("sppo", {}),
    ("trl DPOTrainer", "apo_zero"): ("apo-zero", {}),
    ("trl DPOTrainer", "apo_down"): ("apo-down", {}),
    ("trl DPOTrainer", "discopop"): ("discopop", {"tau": "discopop_tau"}),
    ("trl DPOTrainer", "sigmoid_norm"): ("dpo", {}),
}
BY_KEY = {(p.library, p.name): p for p in PUBLIC}
# Liger's loss -> the one of TRL's that computes the same, where its name does not say which.
LIGER_IN_TRL = {
    "cpo": ("trl.experimental CPOTrainer", "sigmoid, label_smoothing"),
    "simpo": ("trl.experimental CPOTrainer", "simpo"),
    "orpo, odds term": ("trl.experimental ORPOTrainer", "orpo"),
    "kto": ("trl KTOTrainer", "kto"),
}


def heights(rule, values):
    """weight * link at some ρ, with every parameter a number."""
    expression = sp.sympify(rule.weight, strict=True) * rule.link.expression
    expression = expression.subs({s: values[s.name] for s in expression.free_symbols if s.name != "rho"})
    return sp.lambdify(sp.Symbol("rho"), expression, "numpy")(np.linspace(-20, 20, 41))


@pytest.mark.parametrize("key", SAME, ids=lambda key: f"{key[0]}: {key[1]}")
def test_code_and_catalogue_agree_rule_by_rule(key):
    name, names = SAME[key]
    reading, entry = read(BY_KEY[key]), catalogue[name]
    values = dict(reading.hyperparameters)
    values |= {ours: values[theirs] for ours, theirs in names.items()}
    values |= {"n_w": 30.0, "n_l": 20.0, "length_w": 30.0, "length_l": 20.0}  # two spellings of the lengths
    left = list(entry.rules.rules)
    for rule in reading.rules:
        match = next(r for r in left if same_ratio(r.structure, rule.structure))
        np.testing.assert_allclose(heights(rule, values), heights(match, values), rtol=1e-9)
        assert rule.link.direction == match.link.direction
        assert {rule.guard} == {match.guard} or str(rule.guard) == str(match.guard)
        left.remove(match)
    assert not left


def test_rdpo_is_dpo_with_a_signed_mixture_for_a_link():
    # The catalogue writes two rules, on DPO's structure and its swap; on DPO's alone they add up to one link.
    reading = read(BY_KEY["trl DPOTrainer", "robust"])
    (rule,) = reading.rules
    assert rule.structure == catalogue["dpo"].structure
    assert rule.link.direction == "decreasing"
    epsilon = reading.hyperparameters["label_smoothing"]
    rho = np.linspace(-20, 20, 41)
    want = ((1 - epsilon) * np.logaddexp(0, -0.1 * rho) - epsilon * np.logaddexp(0, 0.1 * rho)) / (1 - 2 * epsilon)
    np.testing.assert_allclose(heights(rule, reading.hyperparameters), want, rtol=1e-9)


@pytest.mark.parametrize(
    ("library", "name", "columns"),
    [
        ("prefalign", "CPO(beta=0.1)", ["cpo", "ce"]),
        ("prefalign", "ORPO(beta=0.1)", ["orpo", "ce"]),
        ("prefalign", "OddsRatio(", ["orpo"]),
        ("prefalign", "SLiC(beta=0.1)", ["dpo"]),
        ("prefalign", "SLiCHF(", ["cpo", "ce"]),
        ("trl.experimental CPOTrainer", "hinge", ["cpo", "ce"]),
        ("trl.experimental ORPOTrainer", "orpo", ["orpo", "ce"]),
        ("trl DPOTrainer", "sft", ["ce"]),
        ("trl DPOTrainer", "sigmoid + sft", ["dpo", "ce"]),
        ("trl DPOTrainer", "bco_pair", ["w/rw", "rl/l"]),
        ("trl KTOTrainer", "kto", ["w/rw", "rl/l"]),
        ("trl KTOTrainer", "apo_zero_unpaired", ["w/rw", "rl/l"]),
    ],
)
def test_the_structures_are_those_of_the_papers(library, name, columns):
    public = BY_KEY.get((library, name)) or next(p for p in PUBLIC if p.library == library and p.name.startswith(name))
    found = [rule.structure for rule in read(public).rules]
    assert len(found) == len(columns)
    for structure, column in zip(sorted(found, key=str), sorted((derive(c) for c in columns), key=str), strict=True):
        assert same_ratio(structure, column)


def test_the_batch_mean_of_trls_sft_is_over_tokens():
    assert read(BY_KEY["trl DPOTrainer", "sft"]).batch == ("token mean",)
    assert read(BY_KEY["trl DPOTrainer", "sigmoid + sft"]).batch == ("mean", "token mean")


def test_wpo_weights_are_detached():
    reading = read(BY_KEY["trl DPOTrainer", "sigmoid, use_weighting"])
    assert {s.name for s in reading.rules[0].weight.free_symbols} >= {"W°", "L°"}


def test_simpo_is_cpo_with_a_margin_and_the_catalogue_says_the_same():
    # The paper's authors write a manual reference with log(rw/rl) = gamma/beta: DPO's structure. Code has no such
    # reference, so the margin stays in the link, and the structure is what is left.
    (rule,) = derive(SimPO(beta=2.0, gamma=0.5)).rules
    assert same_ratio(rule.structure, catalogue["cpo"].structure)
    assert "gamma" in catalogue["simpo"].note
    rho, beta, gamma = sp.symbols("rho beta gamma")
    assert rule.link.expression == sp.log(1 + sp.exp(gamma - beta * rho))


def test_dpop_is_dpo_where_its_penalty_rests():
    rules = read(next(p for p in PUBLIC if p.name.startswith("DPOP"))).rules
    w, rw = sp.symbols("w rw")
    found = {rule.guard: rule.structure for rule in rules}
    assert found[sp.Ge(w, rw)] == catalogue["dpo"].structure
    assert found[sp.Lt(w, rw)] == catalogue["dpop"].structure


def test_nothing_is_printed_or_warned_while_reading(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        derive(BY_KEY["prefalign", "DPO(beta=0.1)"].given["self"])
    assert capsys.readouterr().out == ""
