"""The sessions in the documentation are true: every Python block with a prompt is a doctest."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(?:python|pycon)\b[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def sessions(text):
    """The blocks with prompts, as one text in which every line keeps its number."""
    kept = [""] * (text.count("\n") + 1)
    for match in FENCE.finditer(text):
        if ">>>" in match[2]:
            first = text.count("\n", 0, match.start(2))
            for offset, line in enumerate(match[2].splitlines()):
                kept[first + offset] = line.removeprefix(match[1])
    return "\n".join(kept)


PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if ">>>" in sessions(page.read_text("utf-8"))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_sessions_of_a_page_are_true(page, tmp_path, monkeypatch):
    # Somewhere that may be written to, with the examples where a reader in a clone has them.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    name = page.relative_to(ROOT).as_posix()
    # One page is one session: later blocks know what earlier ones defined.
    test = doctest.DocTestParser().get_doctest(sessions(page.read_text("utf-8")), {}, name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report = []
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_a_false_session_is_noticed():
    text = "Text.\n\n```python\n>>> 1 + 1\n3\n```\n\n  ```python\n  >>> 2\n  2\n  ```\n\n```bash\n>>> no\n```\n"
    test = doctest.DocTestParser().get_doctest(sessions(text), {}, "page", None, 0)
    assert [(example.source, example.want, example.lineno) for example in test.examples] == [
        ("1 + 1\n", "3\n", 3),
        ("2\n", "2\n", 8),
    ]
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(test, out=lambda _: None)
    assert (runner.failures, runner.tries) == (1, 2)


def test_pictures_and_pages_that_are_linked_exist():
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8")):
            if "://" not in target and not target.startswith("mailto:"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
