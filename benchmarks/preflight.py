"""Time and memory of the preflight check on synthetic pairs, as plain text and as conversations, on one core.

Run: python benchmarks/preflight.py --tokenizer path/to/a/checkpoint [--rows 100000] [--words 100]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import threading
import time

# One core, or the numbers say how many cores the machine has.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from datasets import Dataset
from transformers import AutoTokenizer

from prefalign.data import check_pairs

TEXT = """
the film was a long and rather slow story about people who never say what they mean but the acting is good and I would
see it again because its ending, which nobody expects, turns everything that came before around; wonderful, terrible,
boring, splendid photography 1994 director's cut (unrated) soundtrack
"""
WORDS = TEXT.split()


def rows_of(count: int, words: int, chat: bool) -> Dataset:
    """Pairs with prompts of about `words` / 2 words and completions of about `words`."""
    rng = random.Random(0)

    def text(size: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(size // 2, 3 * size // 2)))

    def rows() -> list[dict[str, object]]:
        plain = [("Review: " + text(words // 2), " " + text(words), " " + text(words)) for _ in range(count)]
        if not chat:
            return [{"prompt": p, "chosen": c, "rejected": r} for p, c, r in plain]
        roles = ("user", "assistant", "assistant")
        names = ("prompt", "chosen", "rejected")
        return [
            {name: [{"role": role, "content": text}] for name, role, text in zip(names, roles, row, strict=True)}
            for row in plain
        ]

    return Dataset.from_list(rows())


class PeakMemory(threading.Thread):
    """Resident memory of this process, sampled (the kernel's own peak also counts what the rows were made with)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_bytes = self.peak_bytes = self._now()
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, self._now())

    @staticmethod
    def _now() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", help="name or path; without it only the texts are checked")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=100, help="mean words per completion")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer) if args.tokenizer else None
    for chat in (False, True):
        pairs = rows_of(args.rows, args.words, chat)
        memory = PeakMemory()
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        report = check_pairs(pairs, tokenizer, max_length=1024)
        seconds = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_SELF)
        busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        memory.done.set()
        mean = sum(report.lengths[name].mean for name in ("prompt", "chosen", "rejected"))
        print(
            f"{'chat ' if chat else 'plain'} {args.rows:,} pairs of {mean:.0f} {report.unit}: {seconds:.1f} s "
            f"({busy:.1f} s of processor time), {args.rows / busy:,.0f} pairs per processor second, "
            f"memory +{(memory.peak_bytes - memory.start_bytes) / 2**20:.0f} MiB at most"
        )


if __name__ == "__main__":
    main()
