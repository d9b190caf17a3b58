"""Derivation: from equations, in any spelling, to structures; and what is refused, with the reason."""

import itertools
import random
import time

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from prefalign._errors import DerivationError, ParseError, PrefalignError
from prefalign.logic import PreferenceStructure, RuleSet, coprime, derive, equivalent, parse_formula, same_ratio
from prefalign.logic.equations._same import proved_equal
from tests.logic.structures.test_structures import COLUMNS, structures
from tests.logic.table import LOSSES

DPO = "w*rl/(rw*l)"


@pytest.mark.parametrize(("name", "column", "P", "P_C", "P_A", "top", "bottom"), LOSSES)
def test_the_table_comes_out_of_the_equations(name, column, P, P_C, P_A, top, bottom):
    s = derive(f"({top})/({bottom})")
    assert s.rows == column
    assert s.P.is_equivalent(parse_formula(P))
    assert s.P_C.is_equivalent(parse_formula(P_C))
    assert s.P_A.is_equivalent(parse_formula(P_A))


@pytest.mark.parametrize(("name", "column", "P", "P_C", "P_A", "top", "bottom"), LOSSES)
@pytest.mark.parametrize(
    "spelling",
    [
        "log(({top})/({bottom}))",
        "log({top}) - log({bottom})",
        "-(log({bottom}) - log({top}))",
        "beta*(log({top}) - log({bottom}))",
        "1/(({bottom})/({top}))",
        "exp(log({top}) - log({bottom}))",
        "3*({top})/(3*({bottom}))",
        "({top})*({top})*w/(({bottom})*w*({top}))",
        "({top})**3 / (({bottom})*({top})^2)",
    ],
)
def test_any_spelling_gives_the_same_structure(name, column, P, P_C, P_A, top, bottom, spelling):
    assert derive(spelling.format(top=top, bottom=bottom)).rows == column


@pytest.mark.parametrize(("name", "column", "P", "P_C", "P_A", "top", "bottom"), LOSSES)
def test_an_expanded_sympy_expression_gives_the_same_structure(name, column, P, P_C, P_A, top, bottom):
    ratio = sympy.sympify(f"({top})/({bottom})")
    for expression in (
        ratio,
        sympy.expand(ratio),
        sympy.together(ratio),
        sympy.log(ratio),
        sympy.apart(ratio, sympy.Symbol("w")),
    ):
        assert derive(expression).rows == column


@pytest.mark.parametrize(
    ("equation", "column"),
    [
        ("(w/(1-w))/(l/(1-l))", "ovxo"),  # odds
        ("log(w) - log(1-w) - (log(l) - log(1-l))", "ovxo"),
        ("(w - w*l)/(l - w*l)", "ovxo"),
        ("1/(1/w - 1)", "vvxx"),
        ("(1 - l + w*l)/(l - w*l)", "vvxv"),
        ("(w*l + w*(1-l))/l", "bvxo"),
        ("P(w)/P(l)", "bvxo"),
        ("M(w)*(1 − M(l)) ÷ M(l)", "xvxo"),
        ("1", "bbbb"),
        ("-log(w)", "bbvv"),
    ],
)
def test_what_a_person_might_write(equation, column):
    assert derive(equation).rows == column


@pytest.mark.parametrize(
    "equation",
    ["odds(w)/odds(l)", "log(odds(w)/odds(l))", "logit(w) - logit(l)", "log(w) - log(l) + log1p(-l) - log1p(-w)"],
)
def test_odds_are_a_word_for_orpo(equation):
    assert derive(equation).rows == "ovxo"


def test_the_references_probabilities_have_several_names():
    dpo = derive(DPO)
    for spelling in ("(w/R(w))/(l/R(l))", "pi(w)*ref(l)/(pi_ref(w)*policy(l))", "log(w/rw) - log(l/rl)"):
        assert derive(spelling) == dpo
    assert str(dpo.shortest_P) in ("M(w) ∧ R(l)", "¬M(l) ∨ ¬R(w)")
    assert dpo == derive("w/l").with_reference()


def test_dpop_has_copied_variables():
    dpop = derive("w*w2*rl/(rw*rw2*l)")
    assert dpop.atoms == ("w", "l", "rw", "rl", "w2", "rw2")
    assert dpop == PreferenceStructure.from_formulas(
        "(l & rw & rw2) -> (w & w2 & rl)", given="(w & w2 & rl) | (l & rw & rw2)", also="w & w2 & rl & l & rw & rw2"
    )


def test_k_wise_equations_are_read():
    best_of_three = derive("y1*(1-y2)*(1-y3)/((1-y1)*y2*(1-y3) + (1-y1)*(1-y2)*y3)")
    exactly_one = "(y1 & ~y2 & ~y3) | (~y1 & y2 & ~y3) | (~y1 & ~y2 & y3)"
    assert best_of_three == PreferenceStructure.from_formulas("y1", given=exactly_one)


def test_twenty_probabilities_are_read_without_expansion():
    names = [f"y{i}" for i in range(1, 21)]

    def only(i):
        return "*".join(name if j == i else f"(1-{name})" for j, name in enumerate(names))

    start = time.process_time()
    s = derive(f"({only(0)})/({' + '.join(only(i) for i in range(1, 20))})")
    assert time.process_time() - start < 3
    assert (s.top_mask.bit_count(), s.bottom_mask.bit_count()) == (1, 19)


# ------------------------------------------------------------------------------------------- derive undoes ratio


@pytest.mark.parametrize("column", [c for c in COLUMNS if not PreferenceStructure.from_rows(c).is_degenerate])
def test_deriving_the_ratio_of_a_structure_gives_it_back(column):
    s = PreferenceStructure.from_rows(column)
    assert equivalent(derive(s.ratio), s)
    assert equivalent(derive(f"({s.top})/({s.bottom})"), s)


@given(structures())
@settings(max_examples=40, deadline=None)
def test_deriving_the_ratio_of_a_larger_structure_gives_it_back(s):
    if not s.is_degenerate:
        assert equivalent(derive(s.ratio), s)


@given(structures(high=4))
@settings(max_examples=15, deadline=None)
def test_an_expanded_ratio_gives_the_structure_back(s):
    if not s.is_degenerate:
        found = derive(sympy.Mul(sympy.expand(s.top), 1 / sympy.expand(s.bottom), evaluate=False))
        assert same_ratio(found, s)


def test_the_counts_of_two_variables():
    pairs = [PreferenceStructure.from_rows(column) for column in COLUMNS]
    useful = [s for s in pairs if not s.is_degenerate]
    assert (len(pairs), len(useful)) == (256, 225)
    assert sum(s.top_mask != s.bottom_mask for s in useful) == 210
    assert len({coprime(s) for s in useful}) == 187
    assert len({sympy.cancel(s.ratio) for s in useful}) == 187


def test_ratios_are_equal_where_sympy_cancels_them_to_the_same():
    useful = [s for s in map(PreferenceStructure.from_rows, COLUMNS[::3]) if not s.is_degenerate]
    ratios = [sympy.cancel(s.ratio) for s in useful]
    for one, its in zip(useful, ratios, strict=True):
        for other, theirs in zip(useful, ratios, strict=True):
            assert proved_equal(one, other) == (its == theirs), (
                one,
                other,
            )  # without the fingerprint that comes first


def test_a_common_factor_leaves_the_ratio_of_five_atoms_as_it_is():
    rng = random.Random(3)
    three, one = 1 << 8, ("w", "l", "rw")
    for _ in range(20):
        s = PreferenceStructure(one, rng.randrange(1, three), rng.randrange(1, three))
        more = ("w", "l", "rw", "y1", "y2")
        wide = s.over(more)
        factor = PreferenceStructure.from_formulas("y1 | ~y2").over(more).top_mask
        assert same_ratio(PreferenceStructure(more, wide.top_mask & factor, wide.bottom_mask & factor), s)
        other = PreferenceStructure(more, wide.top_mask & factor, wide.bottom_mask)
        assert not same_ratio(other, s)


def test_a_common_factor_is_kept_as_written_and_cancelled_on_request():
    written = derive("w*l/(w*(1-l))")
    assert written.rows == "vxoo"
    assert coprime(written).rows == "vxvx"
    assert same_ratio(written, "l/(1-l)")
    assert not equivalent(written, "l/(1-l)")


# ------------------------------------------------------------------------------------------- constants


@pytest.mark.parametrize(
    ("equation", "margin"),
    [
        ("2*w/l", "log(2)"),
        ("w/(4*l)", "-log(4)"),
        ("log(w/l) - gamma", "-gamma"),
        ("beta*log(w/l) - gamma", "-gamma/beta"),
        ("log(w/l) + log(3)", "log(3)"),
        ("gamma*w/l", "log(gamma)"),
        ("w/l*exp(-gamma)", "-gamma"),
        ("w/(exp(1/2)*l)", "-1/2"),
        ("beta*log(w*exp(-gamma)/l)", "-gamma"),
    ],
)
def test_a_constant_becomes_a_margin_of_the_link(equation, margin):
    found = derive(equation)
    assert isinstance(found, RuleSet)
    assert found.structure.rows == "bvxo"
    rho, beta = sympy.symbols("rho beta")
    shift = sympy.sympify(margin, {"beta": beta, "gamma": sympy.Symbol("gamma")})  # else they are SymPy's functions
    expected = sympy.log(1 + sympy.exp(-beta * (rho + shift)))
    point = {"rho": 0.3, "beta": 0.7, "gamma": 1.9}
    assert found.rules[0].link.expression.subs(point).evalf() == pytest.approx(expected.subs(point).evalf())


def test_further_constants_are_named():
    with pytest.raises(ParseError, match="`shift` is not"):
        derive("log(w/l) - shift")
    assert derive("log(w/l) - shift", parameters=("shift",)).structure.rows == "bvxo"
    with pytest.raises(DerivationError, match="`shift`"):
        derive(sympy.sympify("log(w/l) - shift"))


# ------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("equation", "reason", "remedy"),
    [
        ("w**2/l", "w to the power 2", "w*w2"),
        ("w*w/(l*l)", "to the power 2", "beta of the link"),
        ("l + (1-w)", "values 0, 1, 2 (2 at w=0, l=1)", "1 - w*(1 - l)"),
        ("(w+l)/l", "values 0, 1, 2 (2 at w=1, l=1)", "disjoint products"),
        ("w**(1/2)/l", "power 1/2", "normalised"),
        ("log(w)/3 - log(l)/2", "different factors", "normalised"),
        ("2*log(w/l)", "multiplied by 2", "beta of the link"),
        ("beta*log(w) - log(l)", "one logarithm and not another", "all of them"),
        ("-w/l", "negative", "signs"),
        ("w - w", "zero everywhere", "empty numerator"),
        ("w/(l - l)", "zero everywhere", "empty denominator"),
        ("log(w) + l", "adds a probability to a logarithm", "log(w) - log(l), or w/l"),
        ("log(w)*log(l)", "multiplies logarithms", "sum of them"),
        ("(w + gamma)/l", "gamma stands inside a sum", "margin of the link"),
        ("w*log(l)", "multiplied by something other than a number", "belongs to the link"),
        ("2*w - l", "values -1, 0, 1, 2", "disjoint products"),
    ],
)
def test_what_is_no_ratio_of_counts_is_refused_with_the_reason_and_the_remedy(equation, reason, remedy):
    with pytest.raises(DerivationError) as caught:
        derive(equation)
    assert reason in str(caught.value)
    assert remedy in str(caught.value)


def test_the_remedy_of_a_disjunction_is_its_count():
    # the paper's example: Sem(l + (1 - w)) is M(l) ∨ ¬M(w), whose count is 1 - w(1 - l)
    assert derive("1 - w*(1-l)").P_f.is_equivalent(parse_formula("~(M(l) | ~M(w))")) is False
    assert derive("1 - w*(1-l)").top_mask == parse_formula("M(l) | ~M(w)").mask(("w", "l"))


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("sin(w)", "sin(w)"),
        ("w**eta", "power w**eta"),
        ("sqrt(w)", "power 1/2"),
        ("x/l", "`x`"),
        ("Max(w, l)", "Max"),
        ("I*w", "I"),
        ("zoo", "zoo"),
    ],
)
def test_sympy_expressions_that_are_no_equation_are_refused(expression, says):
    with pytest.raises(DerivationError) as caught:
        derive(sympy.sympify(expression))
    assert says in str(caught.value)


def test_other_objects_are_refused():
    with pytest.raises(DerivationError, match="got function"):
        derive(lambda w: w)
    with pytest.raises(DerivationError, match="got int"):
        derive(3)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("w //l", 3),
        ("w*(1-l", 6),
        ("w ** ", 5),
        ("w 2", 2),
        ("foo/l", 0),
        ("P(q)", 2),
        ("P(rw)", 2),
        ("log w", 4),
        ("", 0),
        ("w ** beta", 5),
        ("w/0", 2),
        ("1.2.3*w", 0),
        ("w == l", 2),
    ],
)
def test_errors_in_the_text_point_at_the_character(text, position):
    with pytest.raises(ParseError) as caught:
        derive(text)
    assert caught.value.position == position


@pytest.mark.parametrize(("name", "meant"), [("cppo", "cpo"), ("ccpoo", "ccpo"), ("UNCP", "uncpo")])
def test_a_misspelt_name_is_helped_whatever_its_case(name, meant):
    with pytest.raises(ParseError, match=f"Did you mean `{meant}`"):
        derive(name)


def test_a_misspelt_name_is_helped():
    with pytest.raises(ParseError, match="orpo"):
        derive("orpoo")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000 + "w",
        "-" * 50_000 + "w",
        "w/" + "(" * 90 + "w",
        "9**9**9**9**9",
        "((((9**64)**64)**64)**64)**64",
        "((((w+1)**64)**64)**64)**64",
        "(w+l+rw+rl)**60/l",
        "(1-w)**64*(1-l)**64*(1-rw)**64*w/l**64",
        "1/" + "(1+1/" * 90 + "w" + ")" * 90,
        "1e99999*w",
        "9" * 90_000,
        "w**99999",
        "w/(l**(-99999999999999999999))",
        "__import__('os')",
        "w.__class__",
        "exp(exp(exp(w)))",
        "log(log(w))",
        "+".join(f"y{i}*y{i + 1}" for i in range(1, 20)) + "/y1",
        "*".join(f"(y{i}+y{i + 1})" for i in range(1, 14)) + "*y1",
        "w/\x00",
        "𝐰/l",
        "w" * 90_000,
    ],
)
def test_hostile_equations_are_refused_quickly(text):
    start = time.process_time()
    with pytest.raises(PrefalignError):
        derive(text)
    assert time.process_time() - start < 5


def test_a_long_sum_is_fine():
    terms = "+".join(itertools.repeat("w*l", 3000)) + "-" + "-".join(itertools.repeat("w*l", 2999))
    assert derive(f"({terms})/l").rows == derive("w*l/l").rows


@given(st.text(alphabet="wlr()+-*/^ 0129.yPMR,logexp", max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_but_never_breaks(text):
    try:
        found = derive(text)
    except PrefalignError:
        return
    assert isinstance(found, PreferenceStructure | RuleSet)
