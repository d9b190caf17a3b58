"""Structures: rows, formulas, polynomials, equality by meaning, swaps and reference forms."""

# ruff: noqa: E741  (w and l are the papers' names)

import itertools

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, Rule, parse_formula
from tests.logic.table import LOSSES

w, l, rw, rl = sympy.symbols("w l rw rl")
COLUMNS = ["".join(letters) for letters in itertools.product("vxbo", repeat=4)]
ATOMS = ("w", "l", "rw", "rl", "w2", "rw2")


@st.composite
def structures(draw, low=3, high=6):
    count = draw(st.integers(low, high))
    masks = st.integers(0, (1 << (1 << count)) - 1)
    return PreferenceStructure(ATOMS[:count], draw(masks), draw(masks))


def test_the_bits_of_a_mask_are_the_rows():
    s = PreferenceStructure(("w", "l"), 0b0011, 0b0101)
    assert s.rows == "bvxo"
    assert PreferenceStructure.from_rows("bvxo") == s


@pytest.mark.parametrize(("name", "column", "P", "P_C", "P_A", "top", "bottom"), LOSSES)
def test_the_authors_formulas_come_out_of_the_rows(name, column, P, P_C, P_A, top, bottom):
    s = PreferenceStructure.from_rows(column)
    assert s.P.is_equivalent(parse_formula(P))
    assert s.P_C.is_equivalent(parse_formula(P_C))
    assert s.P_A.is_equivalent(parse_formula(P_A))
    assert PreferenceStructure.from_formulas(P, given=P_C, also=P_A).rows == column


def test_the_formulas_are_printed_as_the_authors_print_them():
    assert str(PreferenceStructure.from_rows("ovxo").P) == "M(l) → M(w)"
    assert str(PreferenceStructure.from_rows("ovxo").P_C) == "M(w) ⊕ M(l)"
    assert str(PreferenceStructure.from_rows("bvxb").P_A) == "M(w) ↔ M(l)"
    assert str(PreferenceStructure.from_rows("ovxb").P_C) == "¬(M(w) ∧ M(l))"
    dpo = PreferenceStructure.from_rows("bvxo").with_reference()
    assert str(dpo.P) == "(M(l) ∧ R(w)) → (M(w) ∧ R(l))"
    assert str(dpo.P_C) == "(M(w) ∧ R(l)) ∨ (M(l) ∧ R(w))"
    assert str(dpo.P_A) == "M(w) ∧ M(l) ∧ R(w) ∧ R(l)"


@pytest.mark.parametrize("column", COLUMNS)
def test_formula_and_negation_form_give_the_rows_back(column):
    s = PreferenceStructure.from_rows(column)
    assert s.rows == column
    for core in (s.P, s.shortest_P):
        assert PreferenceStructure.from_formulas(core, s.P_C, s.P_A, atoms=s.atoms) == s
    assert s.P_f.mask(s.atoms) == s.top_mask
    assert s.N_f.mask(s.atoms) == s.bottom_mask


@given(structures())
@settings(max_examples=40, deadline=None)
def test_the_three_formulas_reproduce_any_structure(s):
    for core in (s.P, s.shortest_P):
        assert PreferenceStructure.from_formulas(core, s.P_C, s.P_A, atoms=s.atoms) == s


def row_weights(mask, atoms):
    """WMC by the definition: the sum over rows of the product of p (true) or 1 - p (false)."""
    total = sympy.S.Zero
    for row in range(1 << len(atoms)):
        weight = sympy.S(mask >> row & 1)
        for place, atom in enumerate(reversed(atoms)):
            p = sympy.Symbol(atom)
            weight *= 1 - p if row >> place & 1 else p
        total += weight
    return total


@pytest.mark.parametrize("column", COLUMNS)
def test_the_count_by_rows_is_the_polynomial(column):
    s = PreferenceStructure.from_rows(column)
    assert sympy.expand(s.top - row_weights(s.top_mask, s.atoms)) == 0
    assert sympy.expand(s.bottom - row_weights(s.bottom_mask, s.atoms)) == 0


@given(structures(), st.data())
@settings(max_examples=30, deadline=None)
def test_the_count_by_rows_by_formula_and_by_polynomial_agree(s, data):
    point = {atom: data.draw(st.fractions(0, 1, max_denominator=9)) for atom in s.atoms}
    count = len(s.atoms)
    by_rows = by_formula = 0
    formula = s.P_f
    for row in range(1 << count):
        truth = {atom: not row >> (count - 1 - place) & 1 for place, atom in enumerate(s.atoms)}
        weight = 1
        for atom, value in truth.items():
            weight *= point[atom] if value else 1 - point[atom]
        by_rows += weight * (s.top_mask >> row & 1)
        holds = boolean_value(formula.to_sympy(), truth)
        by_formula += weight * holds
    exact = s.top.subs({atom: sympy.Rational(p.numerator, p.denominator) for atom, p in point.items()})
    assert by_rows == by_formula
    assert exact == sympy.Rational(by_rows.numerator, by_rows.denominator)


def boolean_value(expression, truth):
    return bool(expression.subs({sympy.Symbol(atom): value for atom, value in truth.items()}))


def test_top_and_bottom_are_the_papers_polynomials():
    for _, column, *_, top, bottom in LOSSES:
        s = PreferenceStructure.from_rows(column)
        assert s.top == sympy.sympify(top, {"w": w, "l": l})
        assert s.bottom == sympy.sympify(bottom, {"w": w, "l": l})


def test_structures_are_equal_by_meaning():
    a = PreferenceStructure.from_rows("vx", atoms=("w",))
    b = PreferenceStructure.from_rows("vvxx")
    c = PreferenceStructure.from_formulas("w & (l | ~l)", atoms=("w", "l", "rw"))
    assert a == b == c
    assert len({a, b, c}) == 1
    assert a != PreferenceStructure.from_rows("xv", atoms=("w",))
    assert a != "vvxx"


def test_the_formulas_as_written_are_kept_but_not_compared():
    s = PreferenceStructure.from_formulas("~l | w", given="w | l", also="l & w")
    assert (str(s.P), str(s.P_C), str(s.P_A)) == ("¬M(l) ∨ M(w)", "M(w) ∨ M(l)", "M(l) ∧ M(w)")
    assert s == PreferenceStructure.from_rows("bvxo")


def test_rows_in_another_order_of_atoms_are_sorted():
    # over (l, w): TF means l true, w false, which is row FT of (w, l)
    assert PreferenceStructure.from_rows("vxbo", atoms=("l", "w")).rows == "vbxo"
    assert PreferenceStructure.from_rows("vxbo", atoms=("l", "w")).atoms == ("w", "l")
    wide = PreferenceStructure.from_rows("vvxxbboo", atoms=("rw", "w", "l"))
    # rw slowest: vvxx where rw, bboo where not; sorted to w slowest, then l, then rw
    assert wide.atoms == ("w", "l", "rw")
    assert wide.rows == "vbvbxoxo"


def test_the_reference_form_and_back():
    for _, column, *_, top, bottom in LOSSES:
        s = PreferenceStructure.from_rows(column)
        form = s.with_reference()
        assert sympy.expand(form.top - sympy.sympify(top) * rl) == 0
        assert sympy.expand(form.bottom - sympy.sympify(bottom) * rw) == 0
        assert form.without_reference() == s
    with pytest.raises(SpecError, match="this is none"):
        PreferenceStructure.from_formulas("rw -> w", atoms=("w", "l", "rw", "rl")).without_reference()
    with pytest.raises(SpecError, match="already"):
        PreferenceStructure.from_rows("bvxo").with_reference().with_reference()


def test_the_swap_exchanges_chosen_and_rejected():
    assert PreferenceStructure.from_rows("vvxx").swapped().rows == "vxvx"
    dpo = PreferenceStructure.from_rows("bvxo").with_reference()
    assert dpo.swapped() == dpo.negated()
    # DPOP is not symmetric: its copies of w become copies of l
    dpop = PreferenceStructure.from_formulas("w & w2 & rl", atoms=("w", "l", "rl", "w2"))
    assert dpop.swapped() == PreferenceStructure.from_formulas("l & l2 & rw")


@given(structures())
@settings(max_examples=30, deadline=None)
def test_swapping_and_negating_twice_changes_nothing(s):
    assert s.swapped().swapped() == s
    assert s.negated().negated() == s
    assert s.over((*s.atoms, "l2", "rl2")) == s
    assert hash(s.over((*s.atoms, "l2", "rl2"))) == hash(s)


def test_twenty_variables_work():
    names = [f"y{i}" for i in range(1, 21)]
    only_first = " & ".join(["y1", *(f"~{name}" for name in names[1:])])
    some = " | ".join(names)
    s = PreferenceStructure.from_formulas(only_first, given=some)
    assert s.top_mask.bit_count() == 1
    assert s.bottom_mask.bit_count() == 2**20 - 2
    assert s == PreferenceStructure(s.atoms, s.top_mask, s.bottom_mask)
    point = dict.fromkeys(names, sympy.Rational(1, 2))
    assert s.top.subs(point) == sympy.Rational(1, 2**20)
    assert s.bottom.subs(point) == 1 - sympy.Rational(2, 2**20)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("vvx",), "2, 4 or 16"),
        (("vvxz",), "'z' at row 3"),
        (("vvxx", ("w",)), "2 letters for 1 atoms"),
        (("vvxx", ("w", "w")), "distinct"),
        (("vvxx", ("w", "q")), "`q` is no atom"),
    ],
)
def test_wrong_rows_are_refused(arguments, says):
    with pytest.raises(SpecError, match=says):
        PreferenceStructure.from_rows(*arguments)


def test_wrong_masks_and_atoms_are_refused():
    with pytest.raises(SpecError, match="ordered"):
        PreferenceStructure(("l", "w"), 0, 0)
    with pytest.raises(SpecError, match="top_mask"):
        PreferenceStructure(("w",), 0b111, 0)
    with pytest.raises(SpecError, match="at most 20"):
        PreferenceStructure(tuple(f"y{i}" for i in range(1, 22)), 0, 0)
    with pytest.raises(SpecError, match="unsatisfiable"):
        _ = PreferenceStructure.from_rows("vvoo").ratio


@pytest.mark.parametrize("column", ["".join(column) for column in itertools.product("vxbo", repeat=4)])
def test_no_formula_has_a_constant_among_its_parts(column):
    s = PreferenceStructure.from_rows(column)
    for shown in map(str, (s.P, s.P_C, s.P_A, s.shortest_P, s.P_f, s.N_f)):
        assert shown in ("⊤", "⊥") or not set(shown) & set("⊤⊥"), shown


def test_a_rule_without_a_bottom_can_still_be_shown():
    assert "rho = log(infinite)" in repr(Rule(PreferenceStructure.from_rows("vvvo")))


def test_a_structure_shows_itself_in_a_notebook():
    s = PreferenceStructure.from_rows("bvxo")
    assert s._repr_latex_().startswith(r"$P = \mathrm{M}(y_l) \rightarrow \mathrm{M}(y_w)")
    assert s._repr_html_().count("<tr>") == 5
    assert s.table().splitlines()[2:] == ["T     T     both", "T     F     ✓", "F     T     ✗", "F     F     –"]
