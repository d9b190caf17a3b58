"""Formulas: the grammar, its errors, printing, truth tables, and text that means harm."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefalign._errors import ParseError, SpecError
from prefalign.logic import parse_formula
from prefalign.logic.formulas._formula import FALSE, TRUE, And, Atom, Constant, Iff, Implies, Not, Or, Xor
from prefalign.logic.formulas._sympy import from_boolean

W, L = Atom("w"), Atom("l")


@pytest.mark.parametrize("sign", ["->", ">>", "=>", "→", "⇒", "implies", "IMPLIES"])
def test_every_spelling_of_implication_is_read(sign):
    assert parse_formula(f"M(l) {sign} M(w)") == Implies(L, W)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("w & l", And((W, L))),
        ("w ∧ l", And((W, L))),
        ("w and l", And((W, L))),
        ("w | l", Or((W, L))),
        ("w ∨ l", Or((W, L))),
        ("w or l", Or((W, L))),
        ("w ^ l", Xor((W, L))),
        ("w ⊕ l", Xor((W, L))),
        ("w xor l", Xor((W, L))),
        ("w <-> l", Iff(W, L)),
        ("w ↔ l", Iff(W, L)),
        ("w iff l", Iff(W, L)),
        ("~w", Not(W)),
        ("¬w", Not(W)),
        ("not w", Not(W)),
        ("⊤", TRUE),
        ("true", TRUE),
        ("⊥", FALSE),
        ("false", FALSE),
        ("R(w)", Atom("rw")),
        ("R(l) & rw", And((Atom("rl"), Atom("rw")))),
        ("y12", Atom("y12")),
        ("M(w₂)", Atom("w2")),
        ("R(w2)", Atom("rw2")),
    ],
)
def test_atoms_and_connectives(text, tree):
    assert parse_formula(text) == tree


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("~w & l", "(~w) & l"),
        ("w | l & rw", "w | (l & rw)"),
        ("w ^ l & rw", "w ^ (l & rw)"),
        ("w | l ^ rw", "w | (l ^ rw)"),
        ("w | l -> rw", "(w | l) -> rw"),
        ("w -> l -> rw", "w -> (l -> rw)"),
        ("w -> l <-> rw", "(w -> l) <-> rw"),
        ("w & l >> w", "(w & l) >> w"),
        ("~ ~ w", "~(~w)"),
    ],
)
def test_precedence(text, same):
    assert parse_formula(text) == parse_formula(same)


def test_a_formula_is_kept_as_written():
    assert str(parse_formula("w >> w")) == "M(w) → M(w)"
    assert parse_formula("w >> w") != TRUE
    assert parse_formula("w >> w").is_equivalent(TRUE)
    assert parse_formula("(w & l) & rw") != parse_formula("w & l & rw")
    assert {parse_formula("w >> l"), parse_formula("w -> l")} == {Implies(W, L)}


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("M(l) -> -> M(w)", 8),
        ("w & q", 4),
        ("(w", 2),
        ("w <-> l <-> w", 8),
        ("M(rw)", 2),
        ("M(w", 3),
        ("M", 1),
        ("R(y1)", 2),
        ("", 0),
        ("w l", 2),
        ("w &", 3),
        ("w $ l", 2),
        ("y0", 0),
        ("w1", 0),
        ("w )", 2),
        ("w\n& &", 4),
    ],
)
def test_errors_point_at_the_character(text, position):
    with pytest.raises(ParseError) as caught:
        parse_formula(text)
    assert caught.value.position == position
    assert caught.value.text == text


def test_more_atoms_than_twenty_are_refused_when_a_table_is_asked_for():
    formula = parse_formula(" | ".join(f"y{i}" for i in range(1, 22)))
    with pytest.raises(SpecError, match="at most 20"):
        formula.mask()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 50_000 + "w",
        "~" * 50_000 + "w",
        "w -> " * 19_000 + "w",
        "__import__('os').system('true')",
        "w.__class__",
        "M(M(M(w)))",
        "w;l",
        "w" * 99_000,
        "\x00",
        "\ud800",
        "𝐰",
        "w & l\u202e",
        "lambda: 0",
    ],
)
def test_hostile_text_is_refused_at_once(text):
    start = time.perf_counter()
    with pytest.raises(ParseError):
        parse_formula(text)
    assert time.perf_counter() - start < 2


def test_a_long_flat_formula_is_fine():
    assert parse_formula(" & ".join(["w"] * 20_000)).mask(("w",)) == 0b01


def test_text_over_the_limit_is_refused():
    with pytest.raises(ParseError, match="100000 characters"):
        parse_formula("w" * 100_001)


def test_printing():
    formula = parse_formula("~(w & l) -> (rw ^ w2) | y3 | false <-> true")
    assert formula.unicode == "(¬(M(w) ∧ M(l)) → ((R(w) ⊕ M(w₂)) ∨ y₃ ∨ ⊥)) ↔ ⊤"
    assert formula.ascii == "(~(M(w) & M(l)) -> ((R(w) ^ M(w2)) | y3 | false)) <-> true"
    assert parse_formula("l -> w")._repr_latex_() == r"$\mathrm{M}(y_l) \rightarrow \mathrm{M}(y_w)$"
    assert parse_formula("y12 & ~rw").latex == r"y_{12} \land \neg \mathrm{R}(y_w)"


def test_the_truth_table_as_text():
    formula = parse_formula("l -> w")
    assert formula.table() == (
        "M(w)  M(l)  M(l) → M(w)\n────  ────  ───────────\nT     T     T\nT     F     T\nF     T     F\nF     F     T"
    )


def test_the_first_atom_varies_slowest_and_row_0_is_all_true():
    # rows TT, TF, FT, FF are bits 0 to 3
    assert parse_formula("w").mask(("w", "l")) == 0b0011
    assert parse_formula("l").mask(("w", "l")) == 0b0101
    assert parse_formula("w & l").mask() == 0b0001
    assert parse_formula("l & ~w").mask() == 0b0100


def test_operators_build_formulas():
    assert (And((W, L)), Or((W, L)), Xor((W, L)), Implies(W, L), Not(W)) == (W & L, W | L, W ^ L, W >> L, ~W)


formulas = st.recursive(
    st.sampled_from(["w", "l", "rw", "rl", "w2", "y1", "y2"]).map(Atom) | st.booleans().map(Constant),
    lambda part: st.one_of(
        part.map(Not),
        st.builds(Implies, part, part),
        st.builds(Iff, part, part),
        *(st.lists(part, min_size=2, max_size=3).map(tuple).map(kind) for kind in (And, Or, Xor)),
    ),
    max_leaves=12,
)


@given(formulas)
def test_what_is_printed_is_read_back_as_it_was(formula):
    assert parse_formula(formula.unicode) == formula
    assert parse_formula(formula.ascii) == formula


@given(formulas)
def test_the_mask_agrees_with_evaluation_row_by_row(formula):
    atoms = formula.atoms
    mask = formula.mask()
    for row in range(1 << len(atoms)):
        truth = {atom: not row >> (len(atoms) - 1 - place) & 1 for place, atom in enumerate(atoms)}
        assert bool(mask >> row & 1) == _value(formula, truth)


@given(formulas)
def test_to_sympy_and_back_keeps_the_meaning(formula):
    assert from_boolean(formula.to_sympy()).is_equivalent(formula)


def _value(formula, truth):
    """Evaluation by the definition, independent of the masks."""
    if isinstance(formula, Atom):
        return truth[formula.name]
    if isinstance(formula, Constant):
        return formula.value
    parts = [_value(part, truth) for part in formula.below]
    return {
        Not: lambda: not parts[0],
        And: lambda: all(parts),
        Or: lambda: any(parts),
        Xor: lambda: sum(parts) % 2 == 1,
        Implies: lambda: parts[1] if parts[0] else True,
        Iff: lambda: parts[0] == parts[1],
    }[type(formula)]()
