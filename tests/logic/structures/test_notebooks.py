"""Rules in notebooks: as a table and in LaTeX."""

from __future__ import annotations

from html.parser import HTMLParser

import sympy as sp

from prefalign.logic import LINKS, PreferenceStructure, Rule, RuleSet, TwoRatioRule, catalogue, derive, named_inner


class Cells(HTMLParser):
    """The texts of a table's cells, row by row."""

    def __init__(self, page):
        super().__init__()
        self.rows = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows:
            self.rows[-1].append(data)


def test_a_rule_set_is_a_table():
    rules = RuleSet(catalogue["seppo"].rules.rules, "<b>mine</b>")
    page = rules._repr_html_()
    assert "&lt;b&gt;mine" in page
    shown = {(row[2], row[-1]) for row in Cells(page).rows[1:]}
    assert shown == {("l*w/(rl*rw)", "w < rw"), ("rl*w/(l*rw)", "w >= rw")}


def test_a_rule_set_is_latex():
    text = RuleSet((Rule(derive("w/l"), LINKS["hinge"], weight=sp.Symbol("eta")),))._repr_latex_()
    assert r"\eta \cdot \left[\max\left(0, \beta - \rho\right)\right], \quad \rho = \log \frac{w}{l}" in text
    assert text.startswith("$$")
    assert text.endswith("$$")
    assert text.count("{") == text.count("}")


def test_two_ratios_are_shown_with_their_inner_function():
    inner = named_inner(-sp.exp(-sp.Symbol("rho")), "increasing")
    rules = RuleSet((TwoRatioRule(derive("w/rw"), derive("l/rl"), inner),))
    assert r"g(\log \frac{w}{rw}) - g(\log \frac{l}{rl}), \quad g(\rho) = - e^{- \rho}" in rules._repr_latex_()
    assert "w/rw and l/rl" in rules._repr_html_()


def test_a_ratio_without_a_bottom_is_infinite():
    rules = RuleSet((Rule(PreferenceStructure.from_rows("vvvo")),))
    assert "infinite" in rules._repr_html_()
    assert r"\infty" in rules._repr_latex_()
