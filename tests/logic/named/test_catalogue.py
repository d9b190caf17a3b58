"""The catalogue against the papers, and the rules, links and names in it."""

# ruff: noqa: E741  (w and l are the papers' names)

import math

import pytest
import sympy

from prefalign._errors import DerivationError, PrefalignError, SpecError
from prefalign.logic import (
    LINKS,
    Link,
    PreferenceStructure,
    Rule,
    RuleSet,
    catalogue,
    derive,
    equivalent,
    parse_formula,
)
from tests.logic.table import LOSSES

RHO, BETA = sympy.symbols("rho beta")


def softplus(x):
    return math.log1p(math.exp(x))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_the_table_agrees_with_the_paper():
    assert [entry.name for entry in catalogue.table] == [name for name, *_ in LOSSES]
    for name, column, P, P_C, P_A, top, bottom in LOSSES:
        entry = catalogue[name]
        assert entry.column == entry.structure.rows == column
        assert equivalent(entry.structure, PreferenceStructure.from_formulas(P, P_C, P_A))
        assert equivalent(entry.equation, f"({top})/({bottom})")
        assert equivalent(entry.reference_form, f"({top})*rl/(({bottom})*rw)")
        assert "2412.17696" in entry.paper


def test_only_what_the_authors_print_is_called_theirs():
    assert {entry.name for entry in catalogue.table if entry.origin == "authors"} == {
        "CEUnl",
        "CE",
        "ORPO",
        "CPO",
        "unCPO",
    }


@pytest.mark.parametrize(
    "name",
    [
        "DPO",
        "IPO",
        "SLiC",
        "RRHF",
        "SimPO",
        "DPOP",
        "R-DPO",
        "ODPO",
        "KTO",
        "rDPO",
        "cDPO",
        "EXO",
        "RPO",
        "BCO",
        "NCA",
        "SPPO",
        "APO-zero",
        "APO-down",
        "SePPO",
        "SALSA",
    ],
)
def test_every_loss_is_found_in_any_case(name):
    assert catalogue[name].name == catalogue[name.upper()].name == catalogue[f" {name.lower()} "].name == name
    assert name.lower() in catalogue
    assert catalogue[name].paper


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("cross_entropy", "CE"),
        ("Robust DPO", "rDPO"),
        ("robust", "rDPO"),
        ("conservative-dpo", "cDPO"),
        ("Smaug", "DPOP"),
        ("rdpo", "rDPO"),
        ("r-dpo", "R-DPO"),
        ("R_DPO", "R-DPO"),
        ("nca_pair", "NCA"),
        ("apo_zero", "APO-zero"),
        ("slichf", "SLiC-HF"),
        ("CPO-ref", "CPO-ref"),
        ("ccpo_ref", "cCPO-ref"),
    ],
)
def test_aliases(alias, name):
    assert catalogue[alias].name == name


def test_structures_that_the_authors_identify():
    dpo = derive("dpo")
    assert dpo == derive("cpo-ref") == derive("ipo") == derive("simpo") == derive("r-dpo") == derive("odpo")
    assert derive("slic") == derive("rrhf") == derive("cpo")
    assert dpo.P.is_equivalent(parse_formula("(M(l) & R(w)) -> (M(w) & R(l))"))
    assert dpo.P_C.is_equivalent(parse_formula("(M(w) & R(l)) | (M(l) & R(w))"))
    assert dpo.P_A.is_equivalent(parse_formula("M(w) & M(l) & R(w) & R(l)"))


def test_a_loss_of_several_rules_has_no_single_formula():
    for name in ("kto", "rpo", "rdpo", "bco", "nca", "sppo", "apo-zero", "apo-down", "seppo"):
        assert isinstance(derive(name), RuleSet)
        assert len(derive(name)) == 2
    with pytest.raises(DerivationError, match="KTO has 2 structures"):
        _ = catalogue["kto"].structure


# What each paper's loss is, by hand, of policy and reference log-probabilities in nats.
B, EPS, ETA, Z, D, LAM = 0.3, 0.2, 0.05, 0.4, 0.15, 1.3
BY_HAND = {
    "dpo": lambda w, l, rw, rl: softplus(-B * (w - rw - l + rl)),
    "ipo": lambda w, l, rw, rl: (w - rw - l + rl - 1 / (2 * B)) ** 2,
    "slic": lambda w, l, rw, rl: max(0.0, B - (w - l)),
    "rrhf": lambda w, l, rw, rl: max(0.0, l - w),
    "dpop": lambda w, l, rw, rl: softplus(-B * ((w - rw) - (l - rl) - (rw - w))),
    # The reward r - alpha*|y| has the optimum beta*log(pi/ref) = r - alpha*|y|, so that r is that plus alpha*|y|.
    "r-dpo": lambda w, l, rw, rl: softplus(-(B * (w - rw - l + rl) + 0.01 * (30 - 20))),
    "odpo": lambda w, l, rw, rl: softplus(-(B * (w - rw - l + rl) - D)),
    "cdpo": lambda w, l, rw, rl: (1 - EPS) * softplus(-B * (w - rw - l + rl)) + EPS * softplus(B * (w - rw - l + rl)),
    "rdpo": lambda w, l, rw, rl: (
        ((1 - EPS) * softplus(-B * (w - rw - l + rl)) - EPS * softplus(B * (w - rw - l + rl))) / (1 - 2 * EPS)
    ),
    "rpo": lambda w, l, rw, rl: softplus(-B * (w - rw - l + rl)) - ETA * B * w,
    "kto": lambda w, l, rw, rl: LAM * (1 - sigmoid(B * (w - rw - Z))) + LAM * (1 - sigmoid(B * (Z - (l - rl)))),
    "bco": lambda w, l, rw, rl: softplus(-(B * (w - rw) - D)) + softplus(B * (l - rl) - D),
    "nca": lambda w, l, rw, rl: softplus(-B * (w - rw)) + (softplus(B * (w - rw)) + softplus(B * (l - rl))) / 2,
    "sppo": lambda w, l, rw, rl: (w - rw - 1 / (2 * B)) ** 2 + (l - rl + 1 / (2 * B)) ** 2,
    "apo-zero": lambda w, l, rw, rl: 1 - sigmoid(B * (w - rw)) + sigmoid(B * (l - rl)),
    "apo-down": lambda w, l, rw, rl: sigmoid(B * (w - rw)) + 1 - sigmoid(B * (w - rw - l + rl)),
    "exo": lambda w, l, rw, rl: (
        sigmoid(B * (w - rw - l + rl)) * (-softplus(-B * (w - rw - l + rl)) - math.log(1 - EPS))
        + sigmoid(-B * (w - rw - l + rl)) * (-softplus(B * (w - rw - l + rl)) - math.log(EPS))
    ),
    "discopop": lambda w, l, rw, rl: (
        softplus(-B * (w - rw - l + rl)) * (1 - sigmoid(B * (w - rw - l + rl) / 0.05))
        + math.exp(-B * (w - rw - l + rl)) * sigmoid(B * (w - rw - l + rl) / 0.05)
    ),
    "orpo": lambda w, l, rw, rl: softplus(-B * (w - math.log1p(-math.exp(w)) - l + math.log1p(-math.exp(l)))),
    "seppo": lambda w, l, rw, rl: softplus(-B * ((w - rw) - (1 if w >= rw else -1) * (l - rl))),
}


@pytest.mark.parametrize("name", sorted(BY_HAND))
@pytest.mark.parametrize("point", [(-0.3, -1.1, -0.7, -0.9), (-2.0, -0.4, -1.0, -1.5)])
def test_the_rules_compute_the_papers_loss(name, point):
    logps = dict(zip(("w", "l", "rw", "rl"), point, strict=True))
    logps |= {"w2": logps["w"], "rw2": logps["rw"]}  # copies have their original's value
    constants = {"beta": B, "epsilon": EPS, "eta": ETA, "zeta": Z, "delta": D, "lambda_d": LAM, "lambda_u": LAM}
    constants |= {"alpha": 0.01, "length_w": 30, "length_l": 20, "tau": 0.05}
    probabilities = {name: math.exp(value) for name, value in logps.items()}
    total = 0.0
    for rule in catalogue[name].rules:
        if rule.guard is not None and not rule.guard.subs(probabilities):
            continue
        rho = math.log(rule.structure.ratio.subs(probabilities))
        total += float(rule.link.expression.subs(constants).subs(RHO, rho)) * float(
            sympy.sympify(rule.weight, strict=True).subs(constants)
        )
    assert total == pytest.approx(BY_HAND[name](*point), rel=1e-9)


def test_what_has_no_reading_says_why():
    with pytest.raises(DerivationError, match="sorts the margins of a batch"):
        derive("aot")
    assert "aot" not in catalogue
    for kind in (KeyError, PrefalignError):  # a mapping's error, and one that the command line prints
        with pytest.raises(kind, match="Did you mean `orpo`") as caught:
            catalogue["orppo"]
        assert str(caught.value).startswith("no loss is called 'orppo'.")
    assert catalogue.get("nonsense") is None


def test_the_catalogue_is_a_mapping_that_shows_itself():
    assert list(catalogue)[:3] == ["CEUnl", "CE", "ORPO"]
    assert len(catalogue) == len(list(catalogue)) == len(dict(catalogue))
    lines = repr(catalogue).splitlines()
    assert len(lines) == len(catalogue) + 1
    assert lines[3].split() == ["ORPO", "ovxo", "w*(1-l)/(l*(1-w))"]
    assert "2402.01306" in str(catalogue["kto"])


def test_a_structure_finds_its_name():
    assert catalogue.name_of(PreferenceStructure.from_rows("bvxo")) == "CPO"
    assert catalogue.name_of(derive("w*rl/(rw*l)")) == "DPO"
    assert catalogue.name_of(derive("orpo-ref")) == "ORPO-ref"
    assert catalogue.name_of(PreferenceStructure.from_rows("vxvo")) is None


def test_rule_sets_do_not_depend_on_the_order_of_their_rules():
    a, b = Rule(derive("cpo")), Rule(derive("orpo"), LINKS["hinge"])
    assert RuleSet((a, b)) == RuleSet((b, a), "named")
    assert hash(RuleSet((a, b))) == hash(RuleSet((b, a)))
    assert RuleSet((a, a)) != RuleSet((a, b))
    assert RuleSet((a, b)).orders
    assert not RuleSet((a, Rule(b.structure, LINKS["square"]))).orders
    assert not RuleSet((a, Rule(b.structure, weight=-sympy.Symbol("epsilon")))).orders


def test_links_take_margins_and_values():
    assert LINKS["hinge"].with_margin(sympy.Symbol("gamma")).expression.subs({"rho": 1, "gamma": 0.5, "beta": 2}) == 0.5
    assert LINKS["square"].at(beta=sympy.Rational(1, 2)).expression == (RHO - 1) ** 2
    with pytest.raises(SpecError, match=r"no parameter `betta`\. Did you mean `beta`"):
        LINKS["square"].at(betta=0.5)
    with pytest.raises(SpecError, match="symbol rho"):
        Link(BETA, "decreasing")
    with pytest.raises(SpecError, match="'decreasing', 'turning' or 'unknown'"):
        Link(RHO, "up")


def test_wrong_rules_are_refused():
    with pytest.raises(SpecError, match="`structure`"):
        Rule("cpo")
    with pytest.raises(SpecError, match="`link`"):
        Rule(derive("cpo"), "logistic")
    for weight in ("__import__('os')", "2", None):
        with pytest.raises(SpecError, match="`weight` must be a number or a SymPy expression"):
            Rule(derive("cpo"), weight=weight)
    with pytest.raises(SpecError, match="`guard`"):
        Rule(derive("cpo"), guard="w < rw")
    with pytest.raises(SpecError, match="one Rule or more"):
        RuleSet(())
