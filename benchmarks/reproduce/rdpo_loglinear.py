"""Robust DPO where its theory holds exactly: log-linear policies, labels flipped at a known rate.

    python benchmarks/reproduce/rdpo_loglinear.py            # half a minute on one idle core
    python benchmarks/reproduce/rdpo_loglinear.py --quick    # a few seconds, fewer seeds, nothing is written

A policy pi(a|x) is proportional to exp(theta . phi(x, a)), the reference is uniform, and the reward is
beta * theta* . phi with beta = 1, so that pi* has theta = theta*. The difference of log-ratios of a pair is
(theta - 0) . (phi(w) - phi(l)): the losses are prefalign's own objects, fed with synthetic log-probabilities.
Weights are kept in the ball |theta| <= 2 |theta*|, as the theory asks.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from _page import IMAGES, put, table
from torch import Tensor
from tqdm import tqdm

from prefalign.losses import DPO, IPO, DrDPO, HolderDPO, Loss, PairLogps, Robust, Smoothed

RATES = (0.0, 0.1, 0.2, 0.3, 0.4)
BETA, NORM, WEAK, ACTIONS = 1.0, 2.0, 0.5, 4
PAPER = {"rDPO": 2.197, "DPO": 0.663, "cDPO": 0.257}  # optimal margins at p = .9, eps = .3
COLOURS = {
    "DPO": "C0", "cDPO": "C1", "rDPO": "C2", "IPO": "C3", "rIPO": "C4", "Dr.DPO": "C5", "Hölder-DPO": "C6",
}  # fmt: skip


def losses(rate: float) -> dict[str, Loss]:
    """The seven losses, told the true flip rate where they take one."""
    dpo, ipo = DPO(beta=BETA), IPO(beta=BETA, mean=False)
    return {
        "DPO": dpo,
        "cDPO": Smoothed(dpo, rate),
        "rDPO": Robust(dpo, rate),
        "IPO": ipo,
        "rIPO": Robust(ipo, rate),
        "Dr.DPO": DrDPO(beta=BETA, beta_prime=1.0),
        "Hölder-DPO": HolderDPO(beta=BETA, gamma=2.0),
    }


@dataclass(frozen=True)
class World:
    """A reward and contexts to evaluate on: features (contexts, actions, d)."""

    theta: Tensor
    contexts: Tensor

    @classmethod
    def draw(cls, d: int, seed: int, norm: float = NORM) -> World:
        random = torch.Generator().manual_seed(seed)
        theta = torch.randn(d, generator=random, dtype=torch.float64)
        contexts = torch.randn(2000, ACTIONS, d, generator=random, dtype=torch.float64)
        return cls(norm * theta / theta.norm(), contexts)

    def pairs(self, n: int, rate: float, seed: int) -> Tensor:
        """Feature differences chosen - rejected, (n, d), labelled by Bradley-Terry and then flipped."""
        random = torch.Generator().manual_seed(10_000 + seed)
        x = torch.randn(n, len(self.theta), generator=random, dtype=torch.float64) * math.sqrt(2)
        first = torch.rand(n, generator=random, dtype=torch.float64) < torch.sigmoid(BETA * x @ self.theta)
        flipped = torch.rand(n, generator=random, dtype=torch.float64) < rate
        return torch.where((first ^ flipped)[:, None], x, -x)

    def gaps(self, theta: Tensor) -> tuple[float, float]:
        """What pi_theta lacks to pi*, exactly, in nats: of the reward, and of the reward minus beta * KL to uniform."""
        reward = self.contexts @ self.theta * BETA

        def values(weights: Tensor) -> Tensor:
            logs = torch.log_softmax(self.contexts @ weights, dim=1)
            plain, kl = (logs.exp() * reward).sum(dim=1), (logs.exp() * (logs + math.log(ACTIONS))).sum(dim=1)
            return torch.stack([plain, plain - BETA * kl]).mean(dim=1)

        plain, regularised = values(self.theta) - values(theta)
        return float(plain), float(regularised)

    def predict(self, rate: float) -> tuple[float, float, float]:
        """rDPO's asymptotic errors, at n = 1: root mean square distance and gap, and mean regularised gap.

        With H the Hessian of the clean loss at theta* and q the probability of the noisy label, the estimator's
        covariance is H^-1 V H^-1 / n, V = beta^2 E[q (1 - q) x x^T] / (1 - 2 eps)^2: the paper's 1 / (1 - 2 eps), and
        the variance of the label besides, which the bound puts at its largest, 1/4.
        """
        d = len(self.theta)
        random = torch.Generator().manual_seed(999)
        x = torch.randn(100_000, d, generator=random, dtype=torch.float64) * math.sqrt(2)
        p = torch.sigmoid(BETA * x @ self.theta)
        q = (1 - rate) * p + rate * (1 - p)
        hessian = BETA**2 * (x * (p * (1 - p))[:, None]).T @ x / len(x)
        spread = BETA**2 * (x * (q * (1 - q))[:, None]).T @ x / len(x) / (1 - 2 * rate) ** 2
        inverse = torch.linalg.inv(hessian)
        covariance = inverse @ spread @ inverse
        chosen = torch.softmax(self.contexts @ self.theta, dim=1)[..., None]
        centred = self.contexts - (chosen * self.contexts).sum(dim=1, keepdim=True)
        # Cov of the features under pi*: its product with beta theta* is the gradient of the reward, and beta times it
        # minus the curvature of the regularised reward, which theta* maximises.
        features = torch.einsum("xad,xae->de", chosen * centred, centred) / len(self.contexts)
        slope = BETA * features @ self.theta
        return (
            math.sqrt(float(covariance.trace())),
            math.sqrt(float(slope @ covariance @ slope)),
            0.5 * BETA * float((features @ covariance).trace()),
        )


def fit(loss: Loss, x: Tensor, radius: float) -> Tensor:
    """The minimiser of the mean loss in the ball, by L-BFGS from the reference."""
    free = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    zeros = torch.zeros(len(x), dtype=torch.float64)
    optimizer = torch.optim.LBFGS([free], lr=1.0, max_iter=100, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def inside() -> Tensor:
        return free * (radius / free.norm().clamp(min=radius))

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss.reduce(PairLogps(x @ inside(), zeros, zeros, zeros))
        value.backward()
        return value

    optimizer.step(closure)
    return inside().detach()


def margins(seeds: int, n: int) -> dict[str, tuple[float, float]]:
    """The margin that each loss gives one pair whose true preference is .9 under 30 % of flips: mean, error of it."""
    found: dict[str, list[float]] = {name: [] for name in losses(0.3)}
    for seed in tqdm(range(seeds), desc="Margins", delay=2):
        random = np.random.default_rng(seed)
        right = (random.random(n) < 0.9) ^ (random.random(n) < 0.3)
        x = torch.tensor(np.where(right, 1.0, -1.0))[:, None]
        for name, loss in losses(0.3).items():
            found[name].append(float(fit(loss, x, radius=20.0)[0]) * BETA)
    return {name: (float(np.mean(v)), float(np.std(v) / math.sqrt(len(v)))) for name, v in found.items()}


def compare(seeds: int, n: int, d: int) -> dict[str, dict[float, tuple[float, float]]]:
    """For each loss and rate: mean distance from theta*, and mean regularised gap, over the seeds."""
    out: dict[str, dict[float, tuple[float, float]]] = {name: {} for name in losses(0.0)}
    for rate in tqdm(RATES, desc="Losses", delay=2):
        for name, loss in losses(rate).items():
            gaps, distances = [], []
            for seed in range(seeds):
                world = World.draw(d, seed)
                theta = fit(loss, world.pairs(n, rate, seed), 2 * NORM)
                gaps.append(world.gaps(theta)[1])
                distances.append(float((theta - world.theta).norm()))
            out[name][rate] = float(np.mean(distances)), float(np.mean(gaps))
    return out


@dataclass(frozen=True)
class Point:
    """rDPO at one size: root mean square distance and gap and mean regularised gap, measured and predicted."""

    n: int
    d: int
    rate: float
    measured: tuple[float, float, float]
    predicted: tuple[float, float, float]


def scaling(seeds: int, sizes: list[int], dims: list[int], norm: float) -> list[Point]:
    """rDPO at every size, dimension and rate."""
    points = []
    theory = {(d, rate): World.draw(d, 0, norm).predict(rate) for d in dims for rate in RATES}
    cases = [(n, d, rate) for n in sizes for d in dims for rate in RATES]
    for n, d, rate in tqdm(cases, desc=f"Scaling, |theta*| = {norm:g}", delay=2):
        rows = []
        for seed in range(seeds):
            world = World.draw(d, seed, norm)
            theta = fit(Robust(DPO(beta=BETA), rate), world.pairs(n, rate, seed), 2 * norm)
            plain, regularised = world.gaps(theta)
            rows.append([float((theta - world.theta).norm()), plain, regularised])
        distance, plain, regularised = np.array(rows).T
        measured = float(np.sqrt(np.mean(distance**2))), float(np.sqrt(np.mean(plain**2))), float(np.mean(regularised))
        one, two, three = theory[d, rate]
        points.append(Point(n, d, rate, measured, (one / math.sqrt(n), two / math.sqrt(n), three / n)))
    return points


def exponents(points: list[Point], column: int) -> list[list[float]]:
    """Exponents of 1/n, d and 1/(1 - 2 eps) in log-log regressions of a column: as measured, and as predicted."""
    design = np.array([[1.0, -math.log(p.n), math.log(p.d), -math.log(1 - 2 * p.rate)] for p in points])
    columns = np.log(np.array([[p.measured[column], p.predicted[column]] for p in points]))
    return np.linalg.lstsq(design, columns, rcond=None)[0][1:].T.tolist()


def draw(worlds: dict[float, list[Point]], by_loss: dict[str, dict[float, tuple[float, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, (norm, points) in zip(axes, worlds.items(), strict=False):
        for index, rate in enumerate(RATES):
            here = [point for point in points if point.rate == rate]
            scale = [math.sqrt(p.d / p.n) / (1 - 2 * rate) for p in here]
            axis.scatter(scale, [p.measured[0] for p in here], s=16, color=f"C{index}", label=f"flip rate {rate:g}")
            axis.scatter(scale, [p.predicted[0] for p in here], s=30, color=f"C{index}", marker="_")
        axis.set(xscale="log", yscale="log", xlabel="√(d/n) / (1 − 2ε)", ylabel="root mean square |θ − θ*|")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_title(f"rDPO, |θ*| = {norm:g}; dashes: asymptotics")
        axis.legend(fontsize=8)
    for name, values in by_loss.items():
        axes[-1].plot(RATES, [values[rate][0] for rate in RATES], marker="o", label=name, color=COLOURS[name])
    axes[-1].set(xlabel="flip rate ε", ylabel="|θ − θ*|", title=f"All losses, told the true ε; |θ*| = {NORM:g}")
    axes[-1].set_xticks(RATES)
    axes[-1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "rdpo_loglinear.png", dpi=110)
    plt.close(figure)


def describe(worlds: dict[float, list[Point]]) -> str:
    """The table of exponents, measured beside predicted, and how far apart the values themselves lie."""
    names = {0: "distance", 1: "reward gap", 2: "regularised gap"}
    rows, apart = [], []
    for norm, points in worlds.items():
        for column, name in names.items():
            measured, predicted = exponents(points, column)
            # A zero added after rounding takes the sign off -0.00.
            both = [[round(one, 2) + 0.0 for one in side] for side in (measured, predicted)]
            cells = [f"{one:.2f} ({two:.2f})" for one, two in zip(*both, strict=True)]
            rows.append([f"{name}, norm {norm:g}", *cells])
        ratios = [p.measured[0] / p.predicted[0] for p in points]
        apart.append(f"{min(ratios):.2f} to {max(ratios):.2f} (norm {norm:g})")
    head = ["rDPO's", "exponent of 1/n", "of d", "of 1/(1−2ε)"]
    return f"{table(head, rows)}\n\nMeasured over predicted distance: {', '.join(apart)}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer seeds, and nothing is written")
    parser.add_argument("--seeds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the vectors are short
    began = time.perf_counter()
    seeds, sizes, dims = args.seeds, [1000, 4000, 16000], [4, 16]
    if args.quick:
        seeds, sizes, dims = 2, [500, 2000], [4, 8]
    one = margins(2 * seeds, 2000)
    by_loss = compare(seeds, 4000, 8)
    worlds = {norm: scaling(seeds, sizes, dims, norm) for norm in (NORM, WEAK)}
    text = table(
        ["loss", "margin, this run", "margin, theory"],
        [
            [name, f"{mean:.3f} ± {error:.3f}", f"{PAPER[name]:.3f}" if name in PAPER else "–"]
            for name, (mean, error) in one.items()
        ],
    )
    text += f"\n\nOptimal margins at a true preference of .9 under 30 % of flips, {2 * seeds} seeds of 2000 labels.\n\n"
    head = ["loss", *(f"ε = {rate:g}" for rate in RATES)]
    text += table(head, [[name, *(f"{v[rate][0]:.3f}" for rate in RATES)] for name, v in by_loss.items()])
    text += f"\n\nMean distance from θ* (|θ*| = {NORM:g}), d = 8, n = 4000, {seeds} seeds.\n\n"
    text += table(head, [[name, *(f"{v[rate][1]:.4f}" for rate in RATES)] for name, v in by_loss.items()])
    text += (
        "\n\nMean gap to π* of the reward minus β KL, which π* maximises, in nats; same fits.\n\n"
        f"{describe(worlds)} Exponents as measured and, in brackets, as the asymptotics predict, over n = {sizes}, "
        f"d = {dims}, all five rates, {seeds} seeds. The bound has 0.5, 0.5 and 1.\n\n"
        "![rDPO in the log-linear setting](images/rdpo_loglinear.png)"
    )
    print(text)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if not args.quick:
        draw(worlds, by_loss)
        put("rdpo_loglinear", text)


if __name__ == "__main__":
    main()
