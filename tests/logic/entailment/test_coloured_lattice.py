"""Lattices coloured by a number for each node."""

from __future__ import annotations

import copy
import pickle

import pytest

from prefalign import PrefalignError
from prefalign.logic import Lattice


def test_nodes_take_the_colours_of_their_values(tmp_path):
    lattice = Lattice(["cpo", "orpo", "ccpo", "uncpo"])
    plain, coloured = tmp_path / "plain.svg", tmp_path / "coloured.svg"
    lattice.draw(plain)
    lattice.draw(coloured, values={"CPO": 2.0, "ORPO": -2.0, "cCPO": 0.0})
    ends = ("#92c5de", "#f4a582")  # the highest and the lowest; the middle is white like the node without a value
    assert [coloured.read_text().count(colour) for colour in ends] == [1, 1]
    assert not any(colour in plain.read_text() for colour in ends)


def test_a_value_for_no_node_is_refused(tmp_path):
    with pytest.raises(PrefalignError, match="'DPO' is none"):
        Lattice(["cpo", "orpo"]).draw(tmp_path / "x.svg", values={"DPO": 1.0})


def test_a_lattice_is_copied_and_pickled_whole():
    lattice = Lattice({"mine": "cpo", "orpo": "orpo", "ccpo": "ccpo"})
    for other in (pickle.loads(pickle.dumps(lattice)), copy.deepcopy(lattice)):  # noqa: S301 - our own
        assert dict(other.nodes) == dict(lattice.nodes)
        assert other.edges == lattice.edges
