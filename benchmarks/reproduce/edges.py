"""What every loss of the catalogue does at the edges, derived from its logic and then measured.

    python benchmarks/reproduce/edges.py            # six seconds on one core

Derived, exactly: the sign of the change of rho when w and l rise together, the limit of the ratio as both vanish with
w = k*l, and two points between which the chosen probability falls while the loss falls. Measured, in floating point:
the same on 2000 random points, at l = 1e-9, and at those two points.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable

import numpy as np
import sympy
from _page import IMAGES, put, table
from tqdm import tqdm

from prefalign.logic import behaviour, catalogue

SHOWN = ("CPO", "ORPO", "cCPO", "unCPO", "CEUnl", "fUNL", "cUNL", "sCE", "qfUNL", "CE")
WORDS = {"zero": "unmoved", "positive": "rises", "negative": "falls", "both": "either"}


class Ratio:
    """A structure's ratio as a function of named probabilities, in floating point."""

    def __init__(self, ratio: sympy.Expr) -> None:
        self.symbols = sorted(ratio.free_symbols, key=str)
        self.names = [str(symbol) for symbol in self.symbols]
        self.compute: Callable[..., float] = sympy.lambdify(self.symbols, ratio, "numpy")

    def __call__(self, **values: float | np.ndarray) -> float | np.ndarray:
        # A copy (w2, rw2) is a second draw of its original: the same number.
        return self.compute(*(values[name.rstrip("2")] for name in self.names))


def measured_joint(ratio: Ratio, random: np.random.Generator) -> str:
    """What rho does at random points when w and l both rise by a millionth part."""
    point = {name: random.uniform(0.01, 0.98, 2000) for name in ("w", "l", "rw", "rl")}
    here = ratio(**point)
    there = ratio(**{**point, "w": point["w"] * (1 + 1e-6), "l": point["l"] * (1 + 1e-6)})
    change = np.broadcast_to((np.log(there) - np.log(here)) / 1e-6, 2000)
    up, down = bool((change > 1e-6).any()), bool((change < -1e-6).any())
    return {(True, True): "both", (True, False): "positive", (False, True): "negative"}.get((up, down), "zero")


def measured_limit(ratio: Ratio) -> str:
    """Where the ratio goes as w = k*l and l vanish: to 0, to infinity, or to something finite."""
    values = [float(ratio(w=3 * l, l=l, rw=0.4, rl=0.2)) for l in (1e-6, 1e-9)]  # noqa: E741  # the papers' letter
    if values[1] < 1e-5 and values[1] < values[0] / 10:
        return "zero"
    if values[1] > 1e5 and values[1] > values[0] * 10:
        return "infinity"
    return "finite" if math.isclose(values[0], values[1], rel_tol=1e-4) else "unclear"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    began = time.perf_counter()
    random = np.random.default_rng(0)
    rows, checks, agreed = [], 0, 0
    falling, unbounded, safe = [], [], []
    for name in tqdm(list(catalogue), desc="Losses", delay=2):
        rules = catalogue[name].rules
        for number, rule in enumerate(rules.rules, 1):
            facts, ratio = behaviour(rule.structure), Ratio(rule.structure.ratio)
            witness = facts.displacement
            joint, limit = measured_joint(ratio, random), measured_limit(ratio)
            held = [joint == facts.joint.kind, limit == facts.limit.kind]
            if witness is not None:
                before, after = ({k: float(v) for k, v in side.items()} for side in (witness.before, witness.after))
                held.append(float(ratio(**after)) > float(ratio(**before)) and after["w"] < before["w"])
            checks, agreed = checks + len(held), agreed + sum(held)
            shown = name if len(rules.rules) == 1 else f"{name}, rule {number}"
            if len(rules.rules) == 1:
                falling += [name] * (facts.joint.kind == "negative")
                unbounded += [name] * (facts.limit.kind == "infinity")
            safe += [shown] * (witness is None)
            rows.append(
                [
                    shown,
                    f"`{rule.structure.ratio}`",
                    WORDS[facts.joint.kind],
                    str(facts.limit).replace("*", "·"),
                    facts.summed,
                    "possible" if witness else "impossible",
                    "yes" if all(held) else "**no**",
                ]
            )
    head = ["loss", "ratio", "ρ as w and l rise together", "ratio as both vanish", "gradient of sums", "displacement"]
    text = table([*head, "measured the same"], rows)
    text += (
        f"\n\n{len(list(catalogue))} losses, {len(rows)} rules; {agreed} of {checks} derived statements were measured "
        f"the same. Among the losses of one rule, where ρ *falls* as both rise ({', '.join(falling)}) or the limit is "
        f"∞ ({', '.join(unbounded)}), training may sink both answers; where it is 0, it holds them up. Only a "
        "structure that looks at the chosen answer alone rules displacement out by itself "
        f"({'; '.join(safe)}); every loss of a contrast allows it."
        "\n\n![Ratios as both answers vanish](images/edges.png)"
    )
    print(text)
    print(f"\n{time.perf_counter() - began:.0f} s")
    draw()
    put("edges", text)


def draw() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    depth = np.linspace(0.5, 12, 200)
    low = np.exp(-depth) / 3
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for place, name in enumerate(SHOWN):
        values = Ratio(catalogue[name].structure.ratio)(w=3 * low, l=low)
        style = "-" if place < 5 else "--"
        axes.plot(depth, np.log(np.broadcast_to(values, depth.shape)), style, label=name, color=f"C{place % 5}")
    axes.set(xlabel="nats by which w and l both fell (w = 3·l)", ylabel="ρ = log ratio, nats")
    axes.axhline(0, color="0.8", linewidth=0.8)
    for height, words in ((8, "unCPO, fUNL"), (1.9, "CPO, ORPO, cCPO, cUNL"), (-1.2, "qfUNL"), (-7, "CEUnl, sCE, CE")):
        axes.text(9.2, height, words, fontsize=8)
    axes.legend(fontsize=8, ncols=2)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "edges.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
