"""The page of reproductions is as new as the code, and its scripts draw what they promise."""

from __future__ import annotations

import re
from pathlib import Path

from prefalign.logic import catalogue

ROOT = Path(__file__).parents[1]


def test_the_edges_table_has_a_row_for_every_rule_of_the_catalogue():
    page = (ROOT / "docs" / "reproductions.md").read_text("utf-8")
    table = page.partition("<!-- edges: begin -->")[2].partition("<!-- edges: end -->")[0]
    rows = re.findall(r"^\| ([^|]+?) \| `", table, re.MULTILINE)
    expected = []
    for name in catalogue:
        count = len(catalogue[name].rules.rules)
        expected += [name] if count == 1 else [f"{name}, rule {number}" for number in range(1, count + 1)]
    assert rows == expected
    assert f"{len(list(catalogue))} losses, {len(expected)} rules" in table
