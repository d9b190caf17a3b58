"""Run as a script: fuzzing that follows the code's branches (atheris), of the small languages and the reader of data.

Run: pip install atheris, then python -m tests.faults.fuzz_atheris --minutes 10
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT = 2.0  # seconds of this process for one input
# Valid texts of each language, from which the fuzzer starts.
SEEDS: dict[str, tuple[str, ...]] = {
    "formula": ("M(l) -> M(w)", "(w & ~rl) | (rw ^ l) <-> true", "y1 >> (y2 and not y3)", "¬w ∧ (l ∨ R(w))"),
    "equation": ("w*(1-l)/(l*(1-w))", "log(w) - log(l)", "w**2/(rw*l)", "(1-(1-l)*(1-w))/l"),
    "loss": (
        "dpo(beta=0.1)",
        "robust(ipo(beta=1e-2), flip_rate=0.3) + 0.005*sft(reduction='sum')",
        "logic('M(l) >> M(w)', given='M(w) | M(l)', beta=0.1, mean=True)",
        "-2*(cpo(beta=.1) + simpo(2, gamma=1))",
    ),
    "reference": ("initial", "soup(a, b/c, weights=[0.5, .5])", "past(keep=7, every=30, choose='random')"),
    "specification": ("monotone ratio; distinct ratio", "row TF = v; literals max 4", "between cpo unCPO", "atoms w l"),
    "data": (
        '\0{"prompt": "p", "chosen": "c", "rejected": "r"}\n',
        '\1[{"chosen": [{"role": "user", "content": "q"}], "rejected": []}]',
        "\2prompt,chosen,rejected\np,c,r\n",
    ),
}


def readers() -> dict[str, Callable[[bytes], None]]:
    """What is fuzzed: each takes bytes, and raises nothing but a PrefalignError."""
    from prefalign._errors import PrefalignError
    from prefalign.data import check_pairs, load_pairs
    from tests.faults.test_hostile_text import LANGUAGES

    def language(read: Callable[[str], object]) -> Callable[[bytes], None]:
        def one(data: bytes) -> None:
            try:
                read(data.decode("utf-8", "replace"))
            except PrefalignError as error:
                place, size = getattr(error, "position", 0), len(getattr(error, "text", ""))
                if not 0 <= place <= size:
                    raise IndexError(f"place {place} in a text of {size}") from error

        return one

    def data(content: bytes) -> None:
        # The first byte says what kind of file the rest is.
        path = Path("data" + (".jsonl", ".json", ".csv")[content[0] % 3] if content else "data.jsonl")
        path.write_bytes(content[1:])
        try:
            str(check_pairs(load_pairs(str(path)), progress=False)).encode("utf-8")
        except PrefalignError as error:
            str(error).encode("utf-8")

    return {**{name: language(read) for name, read in LANGUAGES.items()}, "data": data}


def fuzz(target: str, seconds: float) -> None:
    """Fuzz one target in this process, in the current folder, which libFuzzer leaves by itself."""
    import atheris

    with atheris.instrument_imports(include=["prefalign"], enable_loader_override=False):
        read = readers()[target]

    def one(data: bytes) -> None:
        start = time.process_time()
        read(data)
        took = time.process_time() - start
        if took > LIMIT:
            raise TimeoutError(f"{took:.1f} s")

    seeds = Path("seeds")
    seeds.mkdir()
    for number, text in enumerate(SEEDS[target]):
        (seeds / str(number)).write_bytes(text.encode("utf-8"))
    # The wall's clock blames us for a busy machine: `LIMIT` counts this process's time, `-timeout` is for what hangs.
    options = [f"-max_total_time={seconds:.0f}", "-timeout=120", "-max_len=300", "-rss_limit_mb=4096", "-verbosity=1"]
    atheris.Setup([target, "seeds", *options], one)
    atheris.Fuzz()


def main() -> int:
    """Fuzz every target in a process of its own, print the counts, and return the number of targets that failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="altogether")
    parser.add_argument("--target", choices=[*SEEDS], help="only this one")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        fuzz(args.target, args.minutes * 60)
        return 0
    targets = [args.target] if args.target else [*SEEDS]
    total, failed = 0, 0
    for target in targets:
        each = args.minutes / len(targets)
        with tempfile.TemporaryDirectory() as folder:
            words = ["-m", "tests.faults.fuzz_atheris", "--inside", "--target", target, "--minutes", str(each)]
            env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            run = subprocess.run(
                [sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, errors="replace"
            )
            done = re.search(r"Done (\d+) runs in (\d+) second", run.stderr)
            if run.returncode or not done:
                failed += 1
                print(f"{target}: FAILED\n{run.stdout[-2000:]}\n{run.stderr[-4000:]}", flush=True)
                for crash in Path(folder).glob("*-*"):
                    print(f"{crash.name}: {crash.read_bytes()!r}", flush=True)
                continue
        total += int(done[1])
        print(f"{target}: {int(done[1]):,} inputs in {done[2]} s, no crash, no hang", flush=True)
    print(f"{total:,} inputs, {len(targets) - failed} of {len(targets)} targets without a crash or a hang")
    return failed


if __name__ == "__main__":
    sys.exit(main())
