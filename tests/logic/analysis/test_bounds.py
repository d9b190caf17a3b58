"""Bounded gradients and losses, against numbers: the largest gradient on points ever closer to the corners."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from prefalign._errors import SpecError
from prefalign.logic import PreferenceStructure, Spec, behaviour, count, generate, parse_spec


def largest(atoms, top, bottom, step):
    """max |p * d rho / dp| over the model's p, on the grid of probabilities step, 1/2, 1 - step and their powers."""
    values = [step, step**2, step**3, 0.5, 1 - step, 1 - step**2, 1 - step**3]
    rows = list(itertools.product((True, False), repeat=len(atoms)))
    points = np.array(list(itertools.product(values, repeat=len(atoms))), dtype=np.longdouble)

    def counted(mask, at):
        picked = [row for i, row in enumerate(rows) if mask >> i & 1]
        return sum(
            np.prod([at[:, k] if true else 1 - at[:, k] for k, true in enumerate(row)], axis=0) for row in picked
        )

    found = 0.0
    for k, atom in enumerate(atoms):
        if atom.startswith("r"):
            continue
        high, low = points.copy(), points.copy()
        high[:, k], low[:, k] = 1, 0
        slopes = [(counted(m, high) - counted(m, low)) / counted(m, points) for m in (top, bottom)]
        found = max(found, float(np.max(np.abs(points[:, k] * (slopes[0] - slopes[1])))))
    return found


def is_bounded(atoms, top, bottom):
    # Unbounded ones grow as a power of 1/step; bounded ones hardly move.
    coarse, fine = (largest(atoms, top, bottom, step) for step in (1e-2, 1e-3))
    return fine < 3 * max(coarse, 1)


@pytest.mark.parametrize("top", range(1, 16))
def test_bounded_gradients_of_all_pairs_are_those_of_the_numbers(top):
    for bottom in range(1, 16):
        facts = behaviour(PreferenceStructure(("w", "l"), top, bottom))
        assert facts.gradient_is_bounded == is_bounded(("w", "l"), top, bottom), (top, bottom)


def test_bounded_gradients_of_three_propositions_are_those_of_the_numbers():
    source = np.random.default_rng(0)
    for top, bottom in source.integers(1, 255, size=(60, 2)).tolist():
        made = PreferenceStructure(("w", "l", "rl"), top, bottom)
        facts = behaviour(made)
        assert facts.gradient_is_bounded == is_bounded(("w", "l", "rl"), top, bottom), (top, bottom)


def test_known_bounds():
    # d/dlog p of log(w/l) is 1 and -1; of log(w/(1 - w)) it is 1/(1 - w).
    assert behaviour("cpo").gradient_is_bounded
    assert behaviour("dpo").gradient_is_bounded
    assert not behaviour("ce").gradient_is_bounded
    assert not behaviour("orpo").gradient_is_bounded


def test_specifications_know_bounds():
    assert "cpo" in parse_spec("bounded gradient")
    assert "orpo" not in parse_spec("bounded gradient")
    everything = list(generate(Spec(satisfiable=True)))
    assert count("satisfiable; bounded gradient") == sum(behaviour(s).gradient_is_bounded for s in everything)
    assert count("satisfiable; bounded loss") == sum(behaviour(s).loss_is_bounded for s in everything)
    # Each row is one of o, v, b: no listing.
    assert count("reference; bounded loss") == 3**16
    assert str(parse_spec("bounded loss; bounded gradient")) == str(Spec(bounded_loss=True, bounded_gradient=True))
    with pytest.raises(SpecError, match="at most four propositions"):
        Spec(("w", "l", "w2"), bounded_gradient=True)
