"""Preferences among K answers: formulas over y1 … yK ("exactly one", "only y1", rankings) and losses made of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise
from math import comb

from ..._errors import SpecError
from ..._numbers import check_number
from ..formulas import FALSE, TRUE, And, Atom, Formula, Implies, Not, Or
from ..tables import MAX_ATOMS
from ._links import LINKS
from ._rules import Rule, RuleSet
from ._structure import PreferenceStructure

# A cardinality formula is written out; with more terms than this nobody reads it.
_MAX_TERMS = 5000


def exactly_one(k: int) -> Formula:
    """One of y1 … yk is a valid answer, and no other.

    Example:
        >>> exactly_one(3)
        (y₁ ∨ y₂ ∨ y₃) ∧ (¬y₁ ∨ ¬y₂) ∧ (¬y₁ ∨ ¬y₃) ∧ (¬y₂ ∨ ¬y₃)
    """
    return _and([at_least(1, k), *_clauses(_answers(k))])


def only(i: int, k: int) -> Formula:
    """yi is valid, and none of the other k-1 answers is.

    Example:
        >>> only(2, 3)
        ¬y₁ ∧ y₂ ∧ ¬y₃
    """
    answers = _answers(k)
    check_number("i", i, SpecError, 1, k, whole=True)
    return _and([answer if place == i else Not(answer) for place, answer in enumerate(answers, 1)])


def at_least(m: int, k: int) -> Formula:
    """m or more of y1 … yk are valid.

    Example:
        >>> at_least(2, 3)
        (y₁ ∧ y₂) ∨ (y₁ ∧ y₃) ∨ (y₂ ∧ y₃)

    Raises:
        SpecError: Written out the formula has more than 5000 terms.
    """
    answers = _answers(k)
    check_number("m", m, SpecError, 0, k, whole=True)
    if not m:
        return TRUE
    # Some m are all valid; or equally: among any k-m+1 there is a valid one.
    terms, clauses = comb(k, m), comb(k, k - m + 1)
    if min(terms, clauses) > _MAX_TERMS:
        raise SpecError(f"`at_least({m}, {k})` has {min(terms, clauses)} terms; at most {_MAX_TERMS} are written out.")
    if terms <= clauses:
        return _or([_and(chosen) for chosen in combinations(answers, m)])
    return _and([_or(chosen) for chosen in combinations(answers, k - m + 1)])


def at_most(m: int, k: int) -> Formula:
    """m or fewer of y1 … yk are valid.

    Example:
        >>> at_most(1, 3)
        (¬y₁ ∨ ¬y₂) ∧ (¬y₁ ∨ ¬y₃) ∧ (¬y₂ ∨ ¬y₃)
    """
    answers = _answers(k)
    check_number("m", m, SpecError, 0, k, whole=True)
    if m == k:
        return TRUE
    if comb(k, m + 1) > _MAX_TERMS:
        raise SpecError(f"`at_most({m}, {k})` has {comb(k, m + 1)} clauses; at most {_MAX_TERMS} are written out.")
    return _and([_or([Not(answer) for answer in chosen]) for chosen in combinations(answers, m + 1)])


def ranking(k: int) -> Formula:
    """The answers are ranked y1, y2, …, yk: whenever one is valid, so is the one before it.

    Example:
        >>> ranking(3)
        (y₂ → y₁) ∧ (y₃ → y₂)
    """
    return _and([Implies(worse, better) for better, worse in pairwise(_answers(k))])


def best_of(k: int) -> PreferenceStructure:
    """y1 wins: "only y1", given that exactly one answer is valid. ORPO's structure at k = 2.

    ρ = log( a1 / (a2 + … + ak) ),  ai = P(yi) / (1 - P(yi))

    Example:
        >>> from prefalign.logic import show
        >>> show(best_of(2).ratio)
        'y1*(1 - y2)/(y2*(1 - y1))'
    """
    if k == 1:
        raise SpecError("`k` must be at least 2: one answer wins against nothing.")
    return PreferenceStructure.from_formulas(only(1, k), given=exactly_one(k))


def plackett_luce(k: int) -> RuleSet:
    """The ranking y1, y2, …, yk as the model of Plackett and Luce: each wins against those below it.

    Under the logistic link at β = 1 the sum over the rules is the model's negative log-likelihood, the strength of an
    answer being its odds P/(1-P):  Σᵢ log( (ai + a(i+1) + … + ak) / ai ).

    Example:
        >>> [rule.structure.atoms for rule in plackett_luce(3)]
        [('y1', 'y2', 'y3'), ('y2', 'y3')]

    Source: Plackett 1975, "The analysis of permutations"; for preference losses Rafailov et al. 2023,
    arXiv:2305.18290, Appendix A.3.
    """
    answers = _answers(k)
    if k == 1:
        raise SpecError("`k` must be at least 2: a ranking of one answer prefers nothing.")
    link = LINKS["logistic"].at(beta=1)
    rules = []
    for start in range(k - 1):
        rest = answers[start:]
        wins = _and([rest[0], *(Not(answer) for answer in rest[1:])])
        rules.append(Rule(PreferenceStructure.from_formulas(wins, given=_and([_or(rest), *_clauses(rest)])), link))
    return RuleSet(tuple(rules), f"Plackett-Luce over {k}")


def _answers(k: int) -> tuple[Formula, ...]:
    check_number("k", k, SpecError, 1, MAX_ATOMS, whole=True)
    return tuple(Atom(f"y{place}") for place in range(1, k + 1))


def _clauses(answers: Sequence[Formula]) -> list[Formula]:
    """No two of the answers."""
    return [Or((Not(one), Not(other))) for one, other in combinations(answers, 2)]


def _and(parts: Sequence[Formula]) -> Formula:
    return And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else TRUE


def _or(parts: Sequence[Formula]) -> Formula:
    return Or(tuple(parts)) if len(parts) > 1 else parts[0] if parts else FALSE
