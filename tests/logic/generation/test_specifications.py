"""Counting and generating agree with a walk over every structure, for every kind of specification."""

from __future__ import annotations

import random

import numpy as np
import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, Spec, count, entails, generate, parse_formula, parse_spec, sample
from tests.logic import brute

W = ("w", "l")
ALL = list(brute.columns(W))
CPO, UNCPO, ORPO, CE = "bvxo", "vvxv", "ovxo", "vvxx"


def _shortest(rows, atoms=W):
    """Literals by exhaustion: the fewest over all DNFs and CNFs of at most four terms over two atoms."""
    return sum(FEWEST[key] for key in _tables(rows))


def _tables(rows):
    """(on, free) of P, P_C and P_A as tuples of rows."""
    on = tuple(label == "v" for label in rows)
    free = tuple(label in "bo" for label in rows)
    nothing = (False,) * len(rows)
    counting = tuple(label != "o" for label in rows)
    both = tuple(label == "b" for label in rows)
    return (on, free), (counting, nothing), (both, nothing)


def _fewest():
    """For each (on, free) over two atoms the least literals, straight from the sixteen tables' shortest formulas."""
    # By hand: constants 0; literals 1; and, or (with any signs) 2; iff and xor 4.
    cost = {}
    for table in range(16):
        values = tuple(bool(table >> row & 1) for row in range(4))
        true = sum(values)
        if true in (0, 4):
            cost[values] = 0
        elif true in (1, 3):
            cost[values] = 2
        else:
            cost[values] = 4 if values in ((True, False, False, True), (False, True, True, False)) else 1
    fewest = {}
    for labels in brute.product("10-", repeat=4):
        on, free = tuple(label == "1" for label in labels), tuple(label == "-" for label in labels)
        fewest[on, free] = min(
            price for values, price in cost.items() if all(free[row] or values[row] == on[row] for row in range(4))
        )
    return fewest


FEWEST = _fewest()

# Arguments of Spec, and what they say of a column over (w, l).
KINDS = {
    "everything": ({}, lambda rows: True),
    "between": ({"between": ("cpo", "unCPO")}, lambda r: brute.entails(CPO, r) and brute.entails(r, UNCPO)),
    "above": ({"above": "orpo"}, lambda r: brute.entails(ORPO, r)),
    "below": ({"below": "ce"}, lambda r: brute.entails(r, CE)),
    "monotone": ({"monotone": True}, lambda r: brute.monotone(r, {"w": 1, "l": -1}, W)),
    "monotone in w": ({"monotone": {"w": 1}}, lambda r: brute.monotone(r, {"w": 1}, W)),
    "falling in w": ({"monotone": {"w": -1, "l": -1}}, lambda r: brute.monotone(r, {"w": -1, "l": -1}, W)),
    "swap": ({"symmetric": "swap"}, lambda r: brute.swap_symmetric(r, W)),
    "rows": ({"rows": {"TF": "v", "F*": "xo"}}, lambda r: r[1] == "v" and r[2] in "xo" and r[3] in "xo"),
    "forall top": (
        {"forall": "top >> M(w)"},
        lambda r: all(values["w"] for values, label in zip(brute.valuations(W), r, strict=True) if brute.is_top(label)),
    ),
    "forall counted": ({"forall": "M(w) | M(l)"}, lambda r: r[3] == "o"),
    "forall iff": ({"forall": "top <-> ~bottom"}, lambda r: set(r) <= set("vx")),
    "conditional": ({"conditional": True}, lambda r: "b" not in r),
    "satisfiable": ({"satisfiable": True}, brute.satisfiable),
    "nontrivial": ({"nontrivial": True}, lambda r: brute.satisfiable(r) and bool(set(r) & set("vx"))),
    "nonconstant": ({"nonconstant": True}, brute.nonconstant),
    "literals": ({"max_literals": 3}, lambda r: _shortest(r) <= 3),
    "six literals": ({"max_literals": 6}, lambda r: _shortest(r) <= 6),
}


@pytest.mark.parametrize("name", KINDS)
def test_count_generate_and_membership_agree_with_all_256(name):
    arguments, holds = KINDS[name]
    expected = {rows for rows in ALL if holds(rows)}
    spec = Spec(**arguments)
    assert count(spec) == len(expected)
    found = [structure.rows for structure in generate(spec)]
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert {rows for rows in ALL if PreferenceStructure.from_rows(rows) in spec} == expected


@pytest.mark.parametrize("seed", range(12))
def test_combinations_agree_with_all_256(seed):
    source = random.Random(seed)
    names = source.sample(sorted(KINDS), 3)
    (first, p), (second, q), (third, r) = ((Spec(**KINDS[name][0]), KINDS[name][1]) for name in names)
    try:
        spec = (first & ~second) | third
    except SpecError:
        assert not any(p(rows) and not q(rows) for rows in ALL)
        return
    expected = {rows for rows in ALL if (p(rows) and not q(rows)) or r(rows)}
    assert count(spec) == len(expected)
    assert {structure.rows for structure in generate(spec)} == expected


def _random_arguments(source, atoms):
    """Arguments that need not be consistent, and the predicate that they mean."""
    arguments, tests = {}, []
    if source.random() < 0.7:
        rows = {"".join(source.choice("TF") for _ in atoms) for _ in range(3)}
        allowed = {row: "".join(sorted(source.sample("vxbo", source.randint(1, 3)))) for row in sorted(rows)}
        arguments["rows"] = allowed
        index = {"".join("T" if t else "F" for t in v.values()): i for i, v in enumerate(brute.valuations(atoms))}
        tests.append(lambda r: all(r[index[row]] in labels for row, labels in allowed.items()))
    if source.random() < 0.5:
        directions = {atom: source.choice((1, -1)) for atom in source.sample(atoms, source.randint(1, len(atoms)))}
        arguments["monotone"] = directions
        tests.append(lambda r: brute.monotone(r, directions, atoms))
    if source.random() < 0.4:
        arguments["conditional"] = True
        tests.append(lambda r: "b" not in r)
    if source.random() < 0.5:
        name = source.choice(("satisfiable", "nonconstant"))
        arguments[name] = True
        tests.append(getattr(brute, name))
    formula = source.choice((None, "top >> (y1 | ~y2)", "y1 | y3", "top ^ bottom", "bottom -> ~y1"))
    if formula is not None:
        arguments["forall"] = formula
        tests.append(lambda r: _forall(formula, r, atoms))
    return arguments, lambda r: all(test(r) for test in tests)


def _forall(formula, rows, atoms):
    for label, values in zip(rows, brute.valuations(atoms), strict=True):
        top, bottom = brute.is_top(label), brute.is_bottom(label)
        y1, y2, y3 = values.values()
        holds = {
            "top >> (y1 | ~y2)": not top or y1 or not y2,
            "y1 | y3": y1 or y3 or not (top or bottom),
            "top ^ bottom": top != bottom,
            "bottom -> ~y1": not bottom or not y1,
        }[formula]
        if not holds:
            return False
    return True


@pytest.mark.slow
def test_random_specifications_over_three_atoms_agree_with_all_65536():
    atoms = ("y1", "y2", "y3")
    everything = list(brute.columns(atoms))
    source = random.Random(3)
    empty = 0
    for _ in range(25):
        arguments, holds = _random_arguments(source, atoms)
        expected = {rows for rows in everything if holds(rows)}
        try:
            spec = Spec(atoms, **arguments)
        except SpecError:
            assert not expected, arguments
            empty += 1
            continue
        assert count(spec) == len(expected), arguments
        if len(expected) < 3000:
            assert {structure.rows for structure in generate(spec)} == expected, arguments
    assert empty < 20


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("anything", 256),
        ("satisfiable", 225),
        ("nontrivial", 210),
        ("satisfiable; distinct ratio", 187),
        ("monotone", 36),
        ("monotone ratio", 52),
        ("monotone ratio; distinct ratio", 40),
        ("monotone; nonconstant", 16),
        ("atoms w, l, rw, rl", 4**16),
        ("atoms w, l, rw, rl; satisfiable", 4_294_836_225),
        ("atoms w, l, rw, rl; symmetric swap", 65_536),
        ("reference; monotone; nonconstant", 27_556),
        ("atoms y1, y2, y3, y4, y5; monotone", 7_581**2),  # Dedekind's numbers
        ("atoms y1, y2, y3, y4, y5, y6, y7, y8", 4**256),
    ],
)
def test_the_known_counts_come_out(text, number):
    assert count(text) == number


def test_the_sixteen_named_losses_are_the_monotone_ones_with_both_parts_non_constant():
    figure = {
        *("xvxx", "vvxx", "ovxo", "bvxo", "vvxv", "vvxo", "xvxv", "xvxo"),
        *("ovxv", "ovxb", "xvxb", "bvxx", "ovxx", "vvxb", "bvxv", "bvxb"),
    }
    assert {structure.rows for structure in generate("monotone; nonconstant")} == figure


def test_distinct_ratios_keep_one_structure_for_each_ratio_and_the_simplest():
    by_ratio = {}
    for rows in ALL:
        if brute.satisfiable(rows):
            by_ratio.setdefault(brute.ratio_key(rows, W), []).append(rows)
    found = [structure.rows for structure in generate("satisfiable; distinct ratio")]
    assert len(found) == len(by_ratio)
    for rows in found:
        alike = by_ratio.pop(brute.ratio_key(rows, W))
        assert _shortest(rows) == min(map(_shortest, alike))


def test_without_a_bottom_there_are_two_ratios():
    """Of one proposition counts are 0, w, 1-w and 1: quotients w/(1-w), (1-w)/w, w, 1-w, 1/w, 1/(1-w), 0, 1, ∞, 0/0."""
    assert count("atoms w; distinct ratio") == len(list(generate("atoms w; distinct ratio"))) == 10


def test_generation_goes_from_few_literals_to_many_and_is_reproducible():
    found = [structure.rows for structure in generate("nontrivial")]
    costs = [_shortest(rows) for rows in found]
    assert costs == sorted(costs)
    assert found == [structure.rows for structure in generate("nontrivial")]


def test_a_set_too_large_to_list_comes_out_lazily_in_the_same_order_as_a_small_one():
    from itertools import islice

    lazily = list(islice(generate("reference; nontrivial"), 400))
    assert len(set(lazily)) == 400
    # The same conditions on a part that can be listed at once: the lazy walk must pass its members in its order.
    part = "reference; nontrivial; rows TT** = v, F*** = x"
    listed = list(generate(part))[:5]
    places = [lazily.index(structure) for structure in listed if structure in lazily]
    assert places == sorted(places)
    assert places


def test_samples_are_members_distinct_and_the_same_for_the_same_seed():
    spec = Spec(monotone=True, satisfiable=True)
    drawn = sample(spec, 20, seed=5)
    assert len(set(drawn)) == 20
    assert all(structure in spec for structure in drawn)
    assert drawn == sample(spec, 20, seed=5)
    assert drawn != sample(spec, 20, seed=6)
    with pytest.raises(SpecError, match="`k` must be at most 25"):
        sample(spec, 26, seed=0)


@pytest.mark.parametrize("text", ["between cpo and unCPO", "atoms w, l, rw, rl; rows **** = vx"])
def test_samples_are_uniform(text):
    # Four structures, or the label of one row among 2**16: each comes up as often, within five standard deviations.
    draws = [sample(text, 1, seed)[0].rows[0] for seed in range(400)]
    for label in set(draws):
        assert abs(draws.count(label) - 200) < 5 * 10


def test_contradictions_name_the_two_parts_that_clash():
    with pytest.raises(SpecError, match=r"`above unCPO` and `row TF = x` contradict each other: .* row TF"):
        Spec(above="unCPO", rows={"TF": "x"})
    with pytest.raises(SpecError, match="`between unCPO and cpo` contradicts itself"):
        Spec(between=("unCPO", "cpo"))
    with pytest.raises(SpecError, match="`row FT = v`, `monotone`, `nonconstant` together, though any two"):
        Spec(monotone=True, nonconstant=True, rows={"FT": "v"})
    with pytest.raises(SpecError, match="`conditional` and `row FF = b` contradict"):
        Spec(conditional=True) & Spec(rows={"FF": "b"})
    with pytest.raises(SpecError, match="`no displacement`"):
        Spec(above="cpo", below="cpo", no_displacement=True)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"rows": {"T": "v"}}, "`rows` must name rows"),
        ({"rows": {"TT": "q"}}, "`rows` must give row TT"),
        ({"monotone": {"y1": 1}}, "`monotone` must map atoms"),
        ({"symmetric": "mirror"}, "`symmetric` must be"),
        ({"max_literals": -1}, "`max_literals` must be"),
        ({"above": "dpo"}, "Say `reference=True`"),
        ({"distinct": "loss"}, "`distinct` must be"),
        ({"forall": "M(y1)"}, "`forall` mentions y1"),
        ({"atoms": ("w",), "symmetric": "swap"}, "partner of `w`"),
    ],
)
def test_malformed_arguments_are_refused_by_name(arguments, named):
    with pytest.raises(SpecError, match=named):
        Spec(**arguments)


def test_a_name_stands_for_its_reference_form_where_a_reference_is_asked_for():
    found = set(generate(Spec(between=("cpo", "unCPO"), reference=True)))
    dpo = PreferenceStructure.from_formulas(
        "M(l) & R(w) >> M(w) & R(l)", given="(M(w) & R(l)) | (M(l) & R(w))", also="M(w) & M(l) & R(w) & R(l)"
    )
    assert dpo in found
    assert all(entails(dpo, structure) for structure in found)
    assert len(found) == 16  # TT and FF of (w, l), with R(l) or R(w): two labels' halves each


def test_formulas_are_taken_as_objects_too():
    assert count(Spec(forall=parse_formula("w | l"))) == 4**3


def test_membership_of_millions_at_four_atoms_agrees_with_bit_tests():
    """Ten free rows of sixteen, 4**10 structures: each condition once more, on arrays of labels."""
    atoms = ("w", "l", "rw", "rl")
    code = np.arange(4**10)
    labels = [np.full(len(code), label, dtype=np.int8) for label in (1, 2, 0, 3)]  # 0 o, 1 v, 2 x, 3 b
    labels += [(code >> 2 * place & 3).astype(np.int8) for place in range(10)]
    labels += [np.zeros(len(code), dtype=np.int8), np.full(len(code), 2, dtype=np.int8)]
    fixed = {"TTTT": "v", "TTTF": "x", "TTFT": "o", "TTFF": "b", "FFFT": "o", "FFFF": "x"}
    top, bottom = [label & 1 for label in labels], [label >> 1 for label in labels]

    rising = np.ones(len(code), dtype=bool)
    for row in range(8, 16):  # w false; the row with w true is eight earlier
        rising &= (top[row] <= top[row - 8]) & (bottom[row] >= bottom[row - 8])
    one_sided = np.logical_and.reduce([label != 3 for label in labels[4:15]])
    implied = np.logical_and.reduce([top[row] == 0 for row in range(16) if row & 4 and row & 1])  # l or rl in a top row

    base = Spec(atoms, rows=fixed)
    assert count(base) == 4**10
    assert count(base & Spec(atoms, monotone={"w": 1})) == rising.sum()
    assert count(base & Spec(atoms, forall="top >> l | rl")) == implied.sum()
    rest = {f"{row:04b}".replace("0", "T").replace("1", "F"): "ovx" for row in range(4, 15)}
    assert count(base & Spec(atoms, rows=rest)) == one_sided.sum()
    assert count(base & ~Spec(atoms, monotone={"w": 1})) == (~rising).sum()
    assert count(base & (Spec(atoms, monotone={"w": 1}) | Spec(atoms, rows=rest))) == (rising | one_sided).sum()


@pytest.mark.parametrize(
    "text", ["monotone; conditional", "not (monotone) and satisfiable or row TF = v", "symmetric swap"]
)
def test_decision_diagrams_count_what_inclusion_and_exclusion_counts(text):
    pytest.importorskip("dd")
    from prefalign.logic.generation.sets._diagrams import count_by_diagram

    for atoms in ("w, l", "w, l, rw, rl"):
        full = text if atoms == "w, l" else text.replace("row TF", "row TF**")
        spec = parse_spec(f"atoms {atoms}; {full}" if " or " not in full else f"atoms {atoms}; ({full})")
        assert count_by_diagram(spec.condition, spec.atoms) == count(spec)


def test_what_neither_factors_nor_can_be_listed_goes_through_diagrams():
    pytest.importorskip("dd")
    # Rows pair up (w true, w false). Without "both": v over {v, o, x}, o over {o, x}, x over {x}: six ways a pair.
    assert count(Spec(("w", "l", "rw", "rl", "w2"), monotone={"w": 1}, conditional=True)) == 6**16
