"""The order: entailment, meet, join, intervals, the lattice of the sixteen, and what it says of the losses."""

# ruff: noqa: E741  (w and l are the papers' names)

import itertools
import math

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from prefalign._errors import SpecError
from prefalign.logic import (
    LINKS,
    Lattice,
    PreferenceStructure,
    between,
    catalogue,
    compare,
    derive,
    entails,
    equivalent,
    join,
    meet,
)
from tests.logic.structures.test_structures import COLUMNS, structures
from tests.logic.table import EDGES, LOSSES

EQUATIONS = {name: f"({top})/({bottom})" for name, *_, top, bottom in LOSSES}
PAIRS = [PreferenceStructure.from_rows(column) for column in COLUMNS]
POINTS = [(a / 7, b / 7) for a in range(1, 7) for b in range(1, 7)]


def rows_entail(a, b):
    """The diamond x < {o, b} < v, row by row."""
    below = {("x", letter) for letter in "xobv"} | {(letter, "v") for letter in "xobv"} | {("o", "o"), ("b", "b")}
    return all(pair in below for pair in zip(a, b, strict=True))


def value(s, w, l):
    """ρ of a structure over w and l, by the definition."""
    weights = [w * l, w * (1 - l), (1 - w) * l, (1 - w) * (1 - l)]
    top = sum(weight for row, weight in enumerate(weights) if s.top_mask >> row & 1)
    bottom = sum(weight for row, weight in enumerate(weights) if s.bottom_mask >> row & 1)
    return math.log(top / bottom)


def test_the_32_hasse_edges_come_out_of_the_equations():
    lattice = Lattice({name: derive(equation) for name, equation in EQUATIONS.items()})
    assert set(lattice.edges) == EDGES
    assert len(lattice.edges) == 32
    pairs = [(a, b) for a in lattice.nodes.values() for b in lattice.nodes.values() if a != b and entails(a, b)]
    assert len(pairs) == 65
    assert lattice.is_lattice


def test_the_reference_forms_have_the_same_order():
    lattice = Lattice({name: derive(f"({equation})*rl/rw") for name, equation in EQUATIONS.items()})
    assert set(lattice.edges) == EDGES


def test_the_sixteen_are_the_monotone_structures_with_a_preference():
    def monotone(mask, up, down):
        """Never lost by turning `up` true or `down` false; bits: TT 0, TF 1, FT 2, FF 3."""
        flips = {"w": ((2, 0), (3, 1)), "l": ((0, 1), (2, 3))}  # from false to true, resp. from true to false
        steps = (
            flips["w"] + flips["l"] if (up, down) == ("w", "l") else tuple((b, a) for a, b in flips["w"] + flips["l"])
        )
        return all(not (mask >> a & 1 and not mask >> b & 1) for a, b in steps)

    found = {
        s.rows
        for s in PAIRS
        if s.top_mask not in (0, 15)
        and s.bottom_mask not in (0, 15)
        and monotone(s.top_mask, "w", "l")
        and monotone(s.bottom_mask, "l", "w")
    }
    assert found == {column for _, column, *_ in LOSSES}


def test_entailment_is_the_diamond_on_rows():
    for a, b in itertools.product(PAIRS, PAIRS):
        assert entails(a, b) == rows_entail(a.rows, b.rows)


def test_meet_and_join_are_the_bounds():
    for a, b in itertools.product(PAIRS[::7], PAIRS[::5]):
        low, high = meet(a, b), join(a, b)
        lower = [s for s in PAIRS if entails(s, a) and entails(s, b)]
        upper = [s for s in PAIRS if entails(a, s) and entails(b, s)]
        assert low in lower
        assert all(entails(s, low) for s in lower)
        assert high in upper
        assert all(entails(high, s) for s in upper)


@given(structures(low=2, high=3), structures(low=2, high=4))
@settings(max_examples=40, deadline=None)
def test_structures_over_different_atoms_are_compared_over_all_of_them(a, b):
    wide = tuple(sorted({*a.atoms, *b.atoms}, key=("w", "l", "rw", "rl").index))
    assert entails(a, b) == entails(a.over(wide), b.over(wide))
    assert entails(meet(a, b), a)
    assert entails(b, join(a, b))
    assert equivalent(a, b) == (a == b)


def test_between_gives_the_interval_once_and_nothing_else():
    low, high = derive("w*(1-l)/(1-w*(1-l))"), derive("w/l")
    found = [s.rows for s in between(low, high)]
    expected = {s.rows for s in PAIRS if rows_entail("xvxx", s.rows) and rows_entail(s.rows, "bvxo")}
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert (found[0], found[-1]) == ("xvxx", "bvxo")
    assert list(between(high, low)) == []


def test_between_is_lazy():
    low = PreferenceStructure.from_rows("x" * 2**10, atoms=[f"y{i}" for i in range(1, 11)])
    high = PreferenceStructure.from_rows("v" * 2**10, atoms=low.atoms)
    assert [s.rows.count("x") for s in itertools.islice(between(low, high), 3)] == [1024, 1023, 1023]


@pytest.mark.parametrize("link", ["logistic", "hinge", "perceptron", "sigmoid"])
def test_entailment_orders_the_losses_under_decreasing_links(link):
    rho, beta = sympy.symbols("rho beta")
    f = sympy.lambdify((rho, beta), LINKS[link].expression, "math")
    useful = [s for s in PAIRS if not s.is_degenerate][::4]
    for a, b in itertools.product(useful, useful):
        if entails(a, b):
            for w, l in POINTS[::5]:
                assert f(value(a, w, l), 0.7) >= f(value(b, w, l), 0.7) - 1e-12


def test_entailment_fails_to_order_the_losses_under_the_square_link():
    orpo, ccpo = derive("w*(1-l)/(l*(1-w))"), derive("w/(l*(1-w))")
    assert entails(orpo, ccpo)
    losses = [(value(s, 0.6, 0.05) - 1 / (2 * 0.5)) ** 2 for s in (orpo, ccpo)]
    assert losses == [pytest.approx(5.522, abs=5e-4), pytest.approx(5.766, abs=5e-4)]
    assert not LINKS["square"].orders


@pytest.mark.parametrize("name", sorted(LINKS))
def test_links_tagged_decreasing_decrease_and_the_others_turn(name):
    link = LINKS[name]
    rho, beta, epsilon = sympy.symbols("rho beta epsilon")
    f = sympy.lambdify((rho, beta, epsilon), link.expression, "math")
    values = [f(x / 4, 0.8, 0.1) for x in range(-60, 61)]
    steps = [b - a for a, b in itertools.pairwise(values)]
    assert (max(steps) <= 1e-12) == link.orders
    assert min(steps) < 0


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_entailment_of_five_atoms_is_that_of_sets(t1, b1, t2, b2):
    atoms = ("w", "l", "rw", "rl", "w2")
    a, b = PreferenceStructure(atoms, t1 & t2, b1 | b2), PreferenceStructure(atoms, t1 | t2, b1 & b2)
    assert entails(a, PreferenceStructure(atoms, t1, b1))
    assert entails(PreferenceStructure(atoms, t2, b2), b)
    assert equivalent(meet(PreferenceStructure(atoms, t1, b1), PreferenceStructure(atoms, t2, b2)), a)


# ------------------------------------------------------------------------------------------- pictures


def test_the_lattice_is_printed_by_rank():
    lattice = Lattice(["cpo", "orpo", "ccpo"])
    assert set(lattice.edges) == {("ORPO", "cCPO"), ("CPO", "cCPO")}
    assert dict(lattice.ranks) == {"ORPO": 0, "CPO": 0, "cCPO": 1}
    assert not lattice.is_lattice
    assert str(lattice).splitlines()[0] == "1  cCPO"


def test_a_rank_is_the_length_of_the_longest_chain_below():
    lattice = Lattice({"a": "oxxx", "b": "vxxx", "c": "xvvo", "d": "vvvo"})  # a ⊏ b ⊏ d, and c ⊏ d
    assert dict(lattice.ranks) == {"a": 0, "b": 1, "c": 0, "d": 2}


def test_losses_with_one_meaning_share_a_node():
    lattice = Lattice(["cpo", "slic", "w/l", "ccpo"])
    assert lattice.edges == (("CPO = SLiC = w/l", "cCPO"),)


def test_names_of_your_own_and_columns():
    lattice = Lattice({"mine": "ovxo", "weaker": "vvxo"})
    assert lattice.edges == (("mine", "weaker"),)
    assert Lattice(["ovxo", PreferenceStructure.from_rows("vvxo")]).edges == (("ovxo", "cCPO"),)


def test_mermaid_has_a_line_per_node_and_edge_and_escapes_names():
    lattice = Lattice({'a"<b>`': "ovxo", "up": "vvxo"})
    text = lattice.mermaid()
    assert text.splitlines()[0] == "graph BT"
    assert text.count("-->") == 1
    assert "&quot;&lt;b&gt;&#96;" in text
    assert '"<b>' not in text
    assert text.count("<br/>M(l) → M(w)<br/>if M(w) ") == 2


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_the_sixteen_are_drawn(tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = Lattice([entry.name for entry in catalogue.table]).draw(tmp_path / f"lattice.{ending}", title="Sixteen")
    assert path.stat().st_size > 20_000


def test_the_same_drawing_has_the_same_bytes(tmp_path):
    pytest.importorskip("matplotlib")
    lattice = Lattice(["cpo", "orpo", "ccpo"])
    assert lattice.draw(tmp_path / "a.svg").read_bytes() == lattice.draw(tmp_path / "b.svg").read_bytes()


def test_an_edge_that_skips_ranks_does_not_run_through_a_box():
    from prefalign.logic.entailment._layout import rows_of

    # a chain of three, and d < c beside it: the edge passes the middle rank in a slot of its own
    ranks = {"a": 0, "b": 1, "c": 2, "d": 0}
    rows, chains = rows_of(ranks, [("a", "b"), ("b", "c"), ("d", "c")])
    assert [len(row) for row in rows] == [2, 2, 1]
    assert chains[2] == ["d", ("d", "c", 1), "c"]


def test_the_layout_of_the_sixteen_has_as_few_crossings_as_can_be():
    from prefalign.logic.entailment._layout import crossings, rows_of

    lattice = Lattice([entry.name for entry in catalogue.table])
    rows, _ = rows_of(lattice.ranks, lattice.edges)
    assert crossings(rows, lattice.edges) == 22  # the minimum: all orders of the rows were tried
    assert crossings([sorted(row) for row in rows], lattice.edges) == 48


@pytest.mark.parametrize(
    ("path", "says"), [("x.txt", "must end in .svg"), ("no/such/folder/x.svg", "folder that exists")]
)
def test_a_wrong_path_is_refused(tmp_path, path, says):
    with pytest.raises(SpecError, match=says):
        Lattice(["cpo"]).draw(tmp_path / path)


def test_an_empty_lattice_is_refused():
    with pytest.raises(SpecError, match="at least one"):
        Lattice([])


# ------------------------------------------------------------------------------------------- compare


def test_compare_prints_the_matrix():
    found = compare("orpo", "cpo", "w/(l*(1-w))", names=("a", "b", "c"))
    assert found.matrix == (
        ("equivalent", "incomparable", "entails"),
        ("incomparable", "equivalent", "entails"),
        ("entailed by", "entailed by", "equivalent"),
    )
    assert str(found).splitlines()[1] == "a  ≡  ∥  ⊏"
    assert found.notes == ()


def test_compare_says_that_links_differ_and_where_the_order_means_nothing():
    notes = compare("dpo", "ipo").notes
    assert any("same structure and other links" in note for note in notes)
    assert any("IPO has a term that need not fall" in note for note in notes)


def test_compare_relates_several_rules_one_by_one():
    kto = derive("kto")
    assert compare(kto, "kto").relation(0, 1) == "equivalent"
    assert compare("kto", "dpo").relation(0, 1) == "incomparable"
    assert any("no single formula" in note for note in compare("kto", "dpo").notes)


def test_compare_finds_one_loss_in_two_structures():
    assert compare("vxoo", "vxvx").relation(0, 1) == "same ratio"


def test_compare_needs_two_losses():
    with pytest.raises(SpecError, match="at least two"):
        compare("dpo")
    with pytest.raises(SpecError, match="one name per loss"):
        compare("dpo", "cpo", names=("a",))
