"""What README and docs/install.md say to type is what pip takes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
OURS = r"^pip install (?:-c \S+ )?\"?(\.\[[\w,]+\])\"?$"


def console_lines(page):
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_no_page_names_a_package_that_is_on_no_index():
    for page in PAGES:
        named = [line for line in console_lines(page) if re.match(r"pip install .*\bprefalign(\[|$)", line)]
        assert not named, f"{page}: {named}"


@pytest.mark.slow
def test_pip_takes_every_line_that_installs_the_clone():
    asked = {match[1] for page in PAGES for line in console_lines(page) if (match := re.match(OURS, line))}
    assert ".[peft,plot]" in asked
    for what in sorted(asked):
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", what]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert run.returncode == 0, f"{what}: {run.stderr[-2000:]}"
