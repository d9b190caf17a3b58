"""What is looked up structure by structure (gradients, displacement, literals) agrees with brute force from its words.

Nothing here comes from the code under test: gradients are numbers at e^-500, displacement is two points with exact
ratios, literals are shortest paths through all unions of cubes.
"""

from __future__ import annotations

import heapq
import random
from fractions import Fraction
from functools import cache
from itertools import combinations, product

import numpy as np
import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, Spec, count, generate, parse_spec
from prefalign.logic.generation.specs._files import spec_from_mapping
from tests.logic import brute

W = ("w", "l")
ALL = list(brute.columns(W))
TINY = Fraction(1, 10**6)


# ------------------------------------------------------------------------------- two propositions, one by one, exactly


def _sums(top, bottom, log_p):
    """-d loss / d log p of -log sigmoid(rho), and the structures that have both sides, at probabilities so small that
    1 - p is 1 in float64. `top` and `bottom`: (structures, rows); `log_p`: (propositions,), in nats."""
    values = np.array(list(product((1.0, 0.0), repeat=len(log_p))))
    logs = values @ log_p
    with np.errstate(divide="ignore", invalid="ignore"):
        shifted = [np.where(side, logs, -np.inf) for side in (top, bottom)]
        peaks = [side.max(axis=1, keepdims=True) for side in shifted]
        shares = [np.exp(side - peak) for side, peak in zip(shifted, peaks, strict=True)]
        totals = [share.sum(axis=1, keepdims=True) for share in shares]
        rho = peaks[0] - peaks[1] + np.log(totals[0] / totals[1])
        slope = (shares[0] / totals[0] - shares[1] / totals[1]) @ values / (1 + np.exp(np.clip(rho, -700, 700)))
    return np.where((top.any(axis=1) & bottom.any(axis=1))[:, None], slope, 0.0)


@cache
def left_at_sums(rows):
    """What moves at e^-500: any gradient, and one that raises w and lowers l at every point looked at."""
    top, bottom = (np.array([[label in labels for label in rows]]) for labels in ("vb", "xb"))
    slopes = [_sums(top, bottom, np.array([-500.0, -500.0 + more]))[0] for more in (-2, 0, 3)]
    return any(np.abs(pair).max() > 1e-6 for pair in slopes), all(w > 1e-6 and lo < -1e-6 for w, lo in slopes)


LINE = [Fraction(n, 6) for n in range(1, 6)]


@cache
def _weights(w, lo):
    return w * lo, w * (1 - lo), (1 - w) * lo, (1 - w) * (1 - lo)


@cache
def _ratio(rows, w, lo):
    top, bottom = (
        sum(weight for label, weight in zip(rows, _weights(w, lo), strict=True) if label in labels)
        for labels in ("vb", "xb")
    )
    return top / bottom


@cache
def stays(rows):
    """Whether w cannot fall while the loss falls, whatever l does: close neighbours of w, and l from end to end."""
    if not brute.satisfiable(rows):
        return False
    ends = (TINY, Fraction(1, 3), 1 - TINY)
    return all(max(_ratio(rows, w - TINY, lo) for lo in ends) <= min(_ratio(rows, w, lo) for lo in ends) for w in LINE)


@cache
def stays_jointly(rows):
    """The same where w and l fall by one factor."""
    if not brute.satisfiable(rows):
        return False
    points = product((*LINE, TINY, 1 - TINY), repeat=2)
    return all(_ratio(rows, w * (1 - TINY), lo * (1 - TINY)) <= _ratio(rows, w, lo) for w, lo in points)


@cache
def rises_and_falls(rows):
    """Whether the ratio rises in w, falls in l (in each it is a Moebius function, so monotone), and moves at all."""
    if not brute.satisfiable(rows):
        return False
    line = (TINY, *LINE, 1 - TINY)
    up = all(_ratio(rows, line[0], lo) <= _ratio(rows, line[-1], lo) for lo in line)
    down = all(_ratio(rows, w, line[0]) >= _ratio(rows, w, line[-1]) for w in line)
    return up and down and len({_ratio(rows, w, lo) for w in line for lo in line}) > 1


# Arguments of Spec, the same in words, and what they say of a column.
KINDS = {
    "survives sum": ({"survives_sum": True}, "survives sum", lambda r: left_at_sums(r)[0]),
    "contrast": ({"survives_sum": "contrast"}, "survives sum contrast", lambda r: left_at_sums(r)[1]),
    "no displacement": ({"no_displacement": True}, "no displacement", stays),
    "joint": ({"no_displacement": "joint"}, "no displacement joint", stays_jointly),
    "monotone ratio": ({"monotone": "ratio"}, "monotone ratio", rises_and_falls),
    "between": (
        {"between": ("ce", "unCPO")},
        "between ce and unCPO",
        lambda r: brute.entails("vvxx", r) and brute.entails(r, "vvxv"),
    ),
    "rows": (
        {"rows": {"*F": "vo", "FT": "xb"}},
        "rows *F = vo, FT = xb",
        lambda r: {r[1], r[3]} <= {*"vo"} and r[2] in "xb",
    ),
    "swap": ({"symmetric": "swap"}, "symmetric swap", lambda r: brute.swap_symmetric(r, W)),
    "conditional": ({"conditional": True}, "conditional", lambda r: "b" not in r),
    "literals": ({"max_literals": 4}, "max literals 4", lambda r: literals(r) <= 4),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_as_object_text_and_mapping_agrees_with_all_256(name):
    arguments, text, holds = KINDS[name]
    expected = {rows for rows in ALL if holds(rows)}
    assert 0 < len(expected) < 256
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    for spec in (Spec(**arguments), parse_spec(text), spec_from_mapping(listed)):
        assert count(spec) == len(expected)
        assert {structure.rows for structure in generate(spec)} == expected
        assert {rows for rows in ALL if PreferenceStructure.from_rows(rows) in spec} == expected


@pytest.mark.slow
@pytest.mark.parametrize("pair", list(combinations(KINDS, 2)), ids=" & ".join)
def test_two_kinds_joined_agree_with_all_256(pair):
    (first, _, p), (second, _, q) = (KINDS[name] for name in pair)
    for negate, holds in ((False, lambda r: p(r) and q(r)), (True, lambda r: p(r) and not q(r))):
        expected = {rows for rows in ALL if holds(rows)}
        ratios = {brute.ratio_key(rows, W) for rows in expected}
        try:
            spec = Spec(**first) & (~Spec(**second) if negate else Spec(**second))
        except SpecError:
            assert not expected
            continue
        assert count(spec) == len(expected)
        assert {structure.rows for structure in generate(spec)} == expected
        assert count(spec & Spec(distinct="ratio")) == len(ratios)
    either = Spec(**first) | Spec(**second)
    assert count(either) == sum(p(rows) or q(rows) for rows in ALL)


# ----------------------------------------------------------------------------------------- shortest formulas, by search


@cache
def shortest_tables(atoms):
    """For every table, as an integer bit r is row r: the least literals of a union of cubes, or of its complement's."""
    rows = 1 << atoms
    full = (1 << rows) - 1
    cubes = []
    for signs in product((None, 0, 1), repeat=atoms):
        inside = [
            row
            for row, values in enumerate(product((1, 0), repeat=atoms))
            if all(sign is None or sign == value for sign, value in zip(signs, values, strict=True))
        ]
        cubes.append((sum(sign is not None for sign in signs), sum(1 << row for row in inside)))
    cost = {0: 0}
    queue = [(0, 0)]
    while queue:  # Dijkstra: from a table to its union with a cube, at the price of the cube
        price, table = heapq.heappop(queue)
        if price > cost[table]:
            continue
        for literals_, cube in cubes:
            wider = table | cube
            if price + literals_ < cost.get(wider, 10**6):
                cost[wider] = price + literals_
                heapq.heappush(queue, (price + literals_, wider))
    return [min(cost[table], cost[full ^ table]) for table in range(full + 1)]


def literals(rows):
    """The literals of the shortest P (rows on both sides or neither are free), P_C and P_A."""
    atoms = len(rows).bit_length() - 1
    cost = shortest_tables(atoms)

    def table(labels):
        return sum(1 << row for row, label in enumerate(rows) if label in labels)

    free = [1 << row for row, label in enumerate(rows) if label in "bo"]
    choices = [table("v")]
    for bit in free:
        choices += [choice | bit for choice in choices]
    return min(cost[choice] for choice in choices) + cost[table("vxb")] + cost[table("b")]


def test_literals_at_three_atoms_are_those_of_shortest_paths():
    atoms = ("y1", "y2", "y3")
    drawn = random.Random(1).sample(list(brute.columns(atoms)), 500)
    costs = {rows: literals(rows) for rows in drawn}
    assert len(set(costs.values())) > 8
    for most in (4, 7, 9, 12):
        spec = Spec(atoms, max_literals=most)
        found = {rows for rows in drawn if PreferenceStructure.from_rows(rows, atoms) in spec}
        assert found == {rows for rows in drawn if costs[rows] <= most}


def test_what_comes_first_at_three_atoms_is_shortest():
    atoms = ("y1", "y2", "y3")
    found = [structure.rows for structure in generate(Spec(atoms, rows={"T**": "vb", "FFF": "xo"}, satisfiable=True))]
    costs = [literals(rows) for rows in found]
    assert costs == sorted(costs)
    assert len(found) == 2**4 * 4**3 * 2 - 2**3  # eight have no bottom row: v; o or v; o


# ---------------------------------------------------------------------------------- three and four propositions, arrays


def _labels(count_of_rows, fixed):
    """Arrays (structures, rows) of top and bottom, all labellings of the rows that are not fixed."""
    free = [row for row in range(count_of_rows) if row not in fixed]
    code = np.arange(4 ** len(free))
    top, bottom = (np.zeros((len(code), count_of_rows), dtype=bool) for _ in range(2))
    for place, row in enumerate(free):
        label = code >> 2 * place & 3  # 0 o, 1 v, 2 x, 3 b
        top[:, row], bottom[:, row] = label & 1, label >> 1
    for row, label in fixed.items():
        top[:, row], bottom[:, row] = label in "vb", label in "xb"
    return top, bottom


def _has_gradient(top, bottom, atoms, moving):
    points = np.random.default_rng(0).uniform(-503, -497, size=(3, atoms))
    return np.any([np.abs(_sums(top, bottom, point)[:, :moving]).max(axis=1) > 1e-6 for point in points], axis=0)


def test_gradients_at_sums_agree_with_all_65536_over_three_atoms():
    atoms = ("y1", "y2", "y3")
    top, bottom = _labels(8, {})
    left = _has_gradient(top, bottom, 3, 3)
    assert count(Spec(atoms, survives_sum=True)) == left.sum()
    both = top & bottom
    assert count(Spec(atoms, survives_sum=True, conditional=True)) == (left & ~both.any(axis=1)).sum()
    # Exchanging the places of y2 and y3 exchanges the rows 1 and 2, and 5 and 6.
    same = np.logical_and.reduce([side[:, a] == side[:, b] for side in (top, bottom) for a, b in ((1, 2), (5, 6))])
    assert count(Spec(atoms, survives_sum=True, symmetric="rejected")) == (left & same).sum()
    assert count(~Spec(atoms, survives_sum=True) | Spec(atoms, symmetric="rejected")) == (~left | same).sum()


@pytest.mark.parametrize("seed", range(4))
def test_intervals_over_three_atoms_agree_with_arrays(seed):
    atoms = ("y1", "y2", "y3")
    source = random.Random(seed)
    low, other = ("".join(source.choice("xxobv") for _ in range(8)) for _ in range(2))
    top, bottom = _labels(8, {})
    above, below = [], []
    for rows, found, upwards in ((low, above, True), (other, below, False)):
        t, b = (np.array([label in labels for label in rows]) for labels in ("vb", "xb"))
        more, less = (top | ~t, ~bottom | b) if upwards else (~top | t, bottom | ~b)
        found.append((more & less).all(axis=1))
    structures = [PreferenceStructure.from_rows(rows, atoms) for rows in (low, other)]
    assert count(Spec(atoms, above=structures[0])) == above[0].sum()
    assert count(Spec(atoms, below=structures[1])) == below[0].sum()
    assert count(Spec(atoms, above=structures[0]) | Spec(atoms, below=structures[1])) == (above[0] | below[0]).sum()
    assert count(~Spec(atoms, above=structures[0])) == (~above[0]).sum()


@pytest.mark.slow
def test_gradients_at_sums_agree_with_65536_over_four_atoms():
    fixed = dict(zip((0, 1, 2, 4, 5, 6, 9, 10), "vxobxvvo", strict=True))  # free: the rows with few atoms true, and two
    top, bottom = _labels(16, fixed)
    # The reference does not move: only the gradient in w and l counts.
    left = _has_gradient(top, bottom, 4, 2)
    assert 0 < left.sum() < len(left)
    assert count(Spec(("w", "l", "rw", "rl"), rows=_named(fixed), survives_sum=True)) == left.sum()


def _named(fixed):
    return {f"{row:04b}".replace("0", "T").replace("1", "F"): label for row, label in fixed.items()}


@pytest.mark.slow
def test_displacement_over_four_atoms_agrees_with_pairs_of_points():
    # With the reference: its probabilities stay, while w falls by a little and l moves anywhere. Three rows are free.
    mixed = dict(enumerate("ovxbxovbvxoob"))
    alone = dict(enumerate("vvvovvvoxxoox"))  # CE's w/(1-w), where R(w) or R(l) is true
    seen = set()
    for fixed in (mixed, alone):
        top, bottom = _labels(16, fixed)
        falls = np.zeros(len(top), dtype=bool)
        for rw, rl, w in product((0.2, 0.6, 0.9), (0.3, 0.8), (0.1, 0.4, 0.6, 0.9)):
            after, before = (
                [_ratios(top, bottom, (point, lo, rw, rl)) for lo in (1e-5, 0.3, 0.7, 1 - 1e-5)]
                for point in (w - 1e-6, w)
            )
            falls |= np.max(after, axis=0) > np.min(before, axis=0) * (1 + 1e-12)
        expected = int((~falls).sum())
        seen.add(expected > 0)
        try:
            assert count(Spec(("w", "l", "rw", "rl"), rows=_named(fixed), no_displacement=True)) == expected
        except SpecError:
            assert expected == 0
    assert seen == {False, True}


def _ratios(top, bottom, point):
    weights = np.array([np.prod(row) for row in product(*((p, 1 - p) for p in point))])
    return (top @ weights) / (bottom @ weights)
