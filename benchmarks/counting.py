"""Counting and listing structures: what a specification costs, beside listing the same set.

Run: python benchmarks/counting.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prefalign.logic import Spec, Specification, count, generate, generate_masks


def seconds(call: Callable[[], object], repeat: int) -> float:
    """The best of five means over `repeat` calls."""
    means = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeat):
            call()
        means.append((time.perf_counter() - start) / repeat)
    return min(means)


def counting(name: str, spec: Specification, limit: float) -> None:
    """Print how long `count` takes on a specification that is made already, and what was asked for."""
    taken = seconds(lambda: count(spec), 200)
    structures = count(spec)
    shown = f"{structures:,}" if structures < 10**15 else f"about 10^{len(str(structures)) - 1}"
    print(f"count   {name:48} {taken * 1e6:9.1f} us   (asked: under {limit * 1e6:6.0f} us)   {shown} structures")


def listing() -> None:
    """Print how many structures a second a user gets at four propositions, as arrays and as sorted objects."""
    for text in (
        "reference",
        "reference; conditional",
        "reference; row TTTT = v",
        "reference; satisfiable; nonconstant",
    ):
        found, start = 0, time.perf_counter()
        for tops, _ in generate_masks(text):
            found += len(tops)
            if found >= 1 << 24:
                break
        rate = found / (time.perf_counter() - start)
        print(f"list    {'generate_masks, ' + text:48} {rate:9.2e} /s   (asked: at least 1e6 /s)")
    start = time.perf_counter()
    found = sum(1 for _ in generate("reference; monotone; nonconstant"))
    rate = found / (time.perf_counter() - start)
    print(f"list    {'generate, reference; monotone; nonconstant':48} {rate:9.2e} /s")


def main() -> None:
    """Print all measurements."""
    four, eight = ("w", "l", "rw", "rl"), tuple(f"y{place}" for place in range(1, 9))
    counting("all over 4 propositions, 4^16", Spec(four), 50e-6)
    counting("the interval above DPO, 4 propositions", Spec(four, above="dpo"), 50e-6)
    counting("all over 8 propositions, 4^256", Spec(eight), 1e-3)
    counting("one label fixed, no row both, 8 propositions", Spec(eight, rows={"T" * 8: "v"}, conditional=True), 1e-3)
    counting("satisfiable, 4 propositions", Spec(four, satisfiable=True), 50e-6)
    fresh = seconds(lambda: count(Spec(four, rows={"TTTT": "v"})), 20)
    print(f"make    {'and count a Spec with one row, 4 propositions':48} {fresh * 1e6:9.1f} us")
    listing()
    small = Spec(("w", "l", "rw"), satisfiable=True)
    start = time.perf_counter()
    listed = sum(1 for _ in generate(small))
    taken = time.perf_counter() - start
    ratio = taken / seconds(lambda: count(small), 50)
    print(f"count against listing {listed:,} structures over 3 propositions: {ratio:,.0f} times faster")


if __name__ == "__main__":
    main()
