"""The examples of docs/losses.md run, and it knows every loss."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import prefalign.losses
from prefalign.losses import Loss, loss_names
from prefalign.losses._registry import find_loss

PAGE = (Path(__file__).parents[2] / "docs" / "losses.md").read_text("utf-8")


def test_the_code_blocks_of_the_page_run():
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    examples = doctest.DocTestParser().get_doctest("\n".join(blocks), {}, "losses.md", "losses.md", 0)
    assert len(examples.examples) > 15
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_the_page_names_every_loss():
    abstract_or_sum = {"Loss", "Composite", "WeightedSum"}
    for name, value in vars(prefalign.losses).items():
        if isinstance(value, type) and issubclass(value, Loss) and name not in abstract_or_sum:
            assert f"| `{name}`: `" in PAGE, name


def test_the_page_names_every_word_of_the_expression_language():
    # Other tests register losses of their own; `my_loss` is the docstring's example, `mean_dpo` TRL's `sigmoid_norm`.
    ours = {name for name in loss_names() if name == "logic" or find_loss(name).__module__.startswith("prefalign.")}
    missing = {name for name in ours - {"my_loss", "mean_dpo"} if not re.search(rf"`{name}[`(]", PAGE)}
    assert not missing
