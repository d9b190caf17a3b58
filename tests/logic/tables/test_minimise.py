"""Short formulas: valid on every truth table with don't-cares, minimal where minimality is promised."""

from __future__ import annotations

import random
from itertools import combinations, product

import pytest

from prefalign.logic.tables._minimise import NormalForm, atom_mask, shortest


def _tables(atoms):
    """Every (on, dontcare) over `atoms` propositions."""
    for labels in product("10-", repeat=1 << atoms):
        yield tuple(sum(1 << row for row, label in enumerate(labels) if label == kind) for kind in "1-")


def _truth(form: NormalForm, values):
    """The normal form at one valuation, read literally: independent of the masks under test."""
    inner, outer = (any, all) if form.conjunctive else (all, any)
    return outer(inner(values[index] is sign for index, sign in term) for term in form.terms)


@pytest.mark.parametrize("atoms", [2, 3])
def test_every_table_with_dont_cares_gets_a_formula_that_is_true_on_its_rows_and_false_off_them(atoms):
    valuations = list(product((True, False), repeat=atoms))  # row 0 is all true, the first atom varies slowest
    for on, free in _tables(atoms):
        form = shortest(atoms, on, free)
        for row, values in enumerate(valuations):
            if not free >> row & 1:
                assert _truth(form, values) == bool(on >> row & 1), (on, free)


def test_no_normal_form_over_two_atoms_is_shorter():
    literals = [(0, True), (0, False), (1, True), (1, False)]
    terms = [(), *((x,) for x in literals), *((x, y) for x in literals[:2] for y in literals[2:])]
    valuations = list(product((True, False), repeat=2))
    best = {}
    for count in range(5):  # four conjunctions cover any table of four rows
        for chosen in combinations(terms, count):
            for conjunctive in (False, True):
                form = NormalForm(conjunctive, chosen)
                table = sum(1 << row for row, values in enumerate(valuations) if _truth(form, values))
                best[table] = min(best.get(table, 99), sum(map(len, chosen)))
    assert len(best) == 16
    for on, free in _tables(2):
        fits = min(cost for table, cost in best.items() if (table ^ on) & ~free & 15 == 0)
        assert shortest(2, on, free).literals == fits, (on, free)


def test_three_short_terms_are_taken_before_two_long_clauses():
    """d ∨ (¬a ∧ b) ∨ (¬b ∧ ¬c) has five literals; (¬a ∨ ¬b ∨ c ∨ …) ∧ …, with fewer terms, six."""
    a, b, c, d = (atom_mask(index, 4) for index in range(4))
    short, free = d | (~a & b & 0xFFFF) | (~b & ~c & 0xFFFF), 4134
    form = shortest(4, short & ~free, free)
    assert form.literals <= 5
    assert (form.mask(4) ^ short) & ~free == 0


def test_dpo_reads_as_two_literals_once_the_rows_of_both_and_neither_are_free():
    # Atoms w, l, rw, rl: top = M(w) & R(l), bottom = M(l) & R(w).
    w, lo, rw, rl = (atom_mask(index, 4) for index in range(4))
    top, bottom = w & rl, lo & rw
    form = shortest(4, top & ~bottom, ~(top ^ bottom) & 0xFFFF)
    assert form.literals == 2
    assert form.mask(4) & ~bottom & top == top & ~bottom
    assert form.mask(4) & bottom & ~top == 0


def test_constants_have_no_literals():
    assert shortest(3, 0) == NormalForm(False, ())
    assert shortest(3, 255) == NormalForm(False, ((),))
    assert shortest(6, 0, (1 << 64) - 1).literals == 0


@pytest.mark.parametrize("atoms", [5, 6, 8])
def test_beyond_the_exact_search_every_literal_and_term_is_needed(atoms):
    source = random.Random(atoms)
    full = (1 << (1 << atoms)) - 1
    for density in (1, 2, 4):
        on = full
        for _ in range(density):
            on &= source.getrandbits(1 << atoms)
        free = source.getrandbits(1 << atoms) & ~on
        form = shortest(atoms, on, free)
        assert (form.mask(atoms) ^ on) & ~free == 0
        for index in range(len(form.terms)):
            fewer = NormalForm(form.conjunctive, form.terms[:index] + form.terms[index + 1 :])
            assert (fewer.mask(atoms) ^ on) & ~free & full, "a term could be dropped"


def test_sixteen_propositions_are_minimised_from_a_table_of_65536_rows():
    masks = [atom_mask(index, 16) for index in range(16)]
    table = (masks[0] & masks[5] & ~masks[9]) | (masks[3] & ~masks[15])
    assert shortest(16, table).literals == 5
