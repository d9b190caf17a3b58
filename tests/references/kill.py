"""Run as a script: stops soups by signals at random moments, and says what was left each time."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prefalign.references import soup
from prefalign.references.weights._ingredients import find_ingredients

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def in_a_child(
    work: Callable[[], object], kill_when: Callable[[], bool] | None = None, by: int = signal.SIGKILL
) -> bool:
    """Run `work` in a forked process, stopped by a signal as soon as `kill_when()`: whether it ended well."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    while kill_when is not None:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        if kill_when():
            os.kill(child, by)
            break
        time.sleep(0.0005)
    return os.waitpid(child, 0)[1] == 0


def kill_soups(folder: Path, moments: int) -> list[dict[str, object]]:
    """Stop `moments` soups of folder/a and folder/b; what is at the target and beside it after each."""
    ingredients, soups = [folder / "a", folder / "b"], folder / "soups"
    assert in_a_child(lambda: soup(ingredients, out=soups / "whole", progress=False))
    total = (soups / "whole" / "model.safetensors").stat().st_size
    found = []
    for number in range(moments):
        out, reached = soups / f"soup{number}", random.uniform(0, 1.05) * total

        def beside(out: Path = out) -> list[Path]:
            return [path for path in soups.iterdir() if path.name.startswith(f".{out.name}.")]

        def far_enough(reached: float = reached) -> bool:
            files = [path / "model.safetensors" for path in beside()]
            # Past the whole size: the files are written, and are brought to the disk, or moved.
            return any(file.exists() and file.stat().st_size >= min(reached, total) for file in files)

        in_a_child(lambda out=out: soup(ingredients, out=out, progress=False), far_enough, SIGNALS[number % 3])
        rest = beside()
        found.append({"there": out.exists(), "partial": len(rest), "loadable": sum(map(_is_loadable, rest))})
        if not out.exists():
            assert in_a_child(lambda out=out: soup(ingredients, out=out, progress=False))
    return found


def _is_loadable(folder: Path) -> bool:
    try:
        find_ingredients([folder])
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    random.seed(int(sys.argv[2]))
    print(json.dumps(kill_soups(Path(sys.argv[1]), int(sys.argv[3]))))
