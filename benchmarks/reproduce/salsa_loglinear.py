"""SALSA where everything is exact: log-linear policies, two fine-tuned parents, DPO held to their soups.

    python benchmarks/reproduce/salsa_loglinear.py            # ten seconds on a free core
    python benchmarks/reproduce/salsa_loglinear.py --quick    # a second, fewer worlds, nothing is written

A policy pi(a|x) is proportional to exp(theta . phi(x, a)). Two actions are drawn from pi_base(.|x) and labelled by
Bradley-Terry. SFT1 and SFT2 maximise the likelihood of the chosen actions of one half of the contexts each; DPO starts
at SFT1, on all pairs, and is held to alpha * SFT1 + (1 - alpha) * SFT2. It only sees differences,
D = (theta - theta_ref) . (phi(w) - phi(l)): the loss is prefalign's own object, fed with these log-probabilities.

Held out, the expectation of log pi over the chosen actions is a sum over all actions and labels, without sampling.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from _page import IMAGES, put, table
from torch import Tensor
from tqdm import tqdm

from prefalign.losses import DPO, PairLogps

ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)
MOMENTS = (1, 2, 4, 8, 16, 64, 128)
D, ACTIONS, PAIRS, HELD_OUT = 8, 6, 100, 2000
RATE = 0.5  # of gradient descent, times beta


@dataclass(frozen=True)
class World:
    """Log-probabilities of the behaviour and rewards are linear in the features, with these weights, (d,)."""

    base: Tensor
    reward: Tensor

    @classmethod
    def draw(cls, random: torch.Generator) -> World:
        base, reward = torch.randn(2, D, generator=random, dtype=torch.float64)
        return cls(base / base.norm(), 2 * reward / reward.norm())

    def chosen(self, phi_NAd: Tensor) -> Tensor:
        """The probability that an action is the chosen one of a pair, (contexts, actions)."""
        mu_NA = torch.softmax(phi_NAd @ self.base, dim=1)
        reward_NA = phi_NAd @ self.reward
        wins_NAA = torch.sigmoid(reward_NA[:, :, None] - reward_NA[:, None, :])
        return 2 * mu_NA * (wins_NAA * mu_NA[:, None, :]).sum(dim=2)

    def pairs(self, phi_NAd: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """The numbers of chosen and rejected actions, (contexts,) each."""
        both_N2 = torch.multinomial(torch.softmax(phi_NAd @ self.base, dim=1), 2, replacement=True, generator=random)
        reward_N2 = (phi_NAd @ self.reward).gather(1, both_N2)
        first = torch.rand(len(both_N2), generator=random, dtype=torch.float64) < torch.sigmoid(
            reward_N2[:, 0] - reward_N2[:, 1]
        )
        return torch.where(first, *both_N2.T), torch.where(first, *both_N2.flip(1).T)


def features(count: int, random: torch.Generator) -> Tensor:
    """Standard normal, (contexts, actions, d)."""
    return torch.randn(count, ACTIONS, D, generator=random, dtype=torch.float64)


def of(phi_NAd: Tensor, actions: Tensor) -> Tensor:
    """The features of one action per context."""
    return phi_NAd[torch.arange(len(phi_NAd)), actions]


def likelihood(theta: Tensor, phi_NAd: Tensor, weights_NA: Tensor) -> Tensor:
    """The mean over contexts of the expected log-probability, in nats, of actions drawn with these weights."""
    return (torch.log_softmax(phi_NAd @ theta, dim=1) * weights_NA).sum(dim=1).mean()


def minimise(value_at: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The minimum of a convex function, by L-BFGS."""
    free = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([free], lr=1.0, max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = value_at(free)
        value.backward()
        return value

    optimizer.step(closure)
    return free.detach()


def sft(phi_NAd: Tensor, chosen: Tensor) -> Tensor:
    """The maximum of the likelihood of the chosen actions."""
    weights_NA = torch.nn.functional.one_hot(chosen, ACTIONS).double()
    return minimise(lambda theta: -likelihood(theta, phi_NAd, weights_NA), torch.zeros(D, dtype=torch.float64))


def on_pairs(theta_Rd: Tensor, reference_Rd: Tensor, x: Tensor, beta: float) -> Tensor:
    """The sum over runs of DPO's mean loss; x = phi(w) - phi(l), so that theta . x is log pi(w) - log pi(l)."""
    policy, reference = (theta_Rd @ x.T).flatten(), (reference_Rd @ x.T).flatten()
    zeros = torch.zeros_like(policy)
    return DPO(beta=beta)(PairLogps(policy, zeros, reference, zeros)).sum() / len(x)


def dpo(start_Rd: Tensor, reference_Rd: Tensor, x: Tensor, beta: float) -> list[Tensor]:
    """The policies at MOMENTS of gradient descent, in steps of RATE / beta, and at the optimum; runs side by side."""
    theta_Rd, found = start_Rd, []
    for step in range(1, MOMENTS[-1] + 1):
        theta_Rd = theta_Rd.detach().requires_grad_()
        (slope_Rd,) = torch.autograd.grad(on_pairs(theta_Rd, reference_Rd, x, beta), theta_Rd)
        theta_Rd = theta_Rd.detach() - RATE / beta * slope_Rd
        if step in MOMENTS:
            found.append(theta_Rd)
    return [*found, minimise(lambda theta_Rd: on_pairs(theta_Rd, reference_Rd, x, beta), reference_Rd)]


def one_world(seed: int, beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Held-out log-likelihoods of (parent, parent, soup), and their changes by DPO, (alphas, moments), optimum last.

    Each parent is SFT1 once, and the mean of the two is taken: which comes first is chance.
    """
    random = torch.Generator().manual_seed(seed)
    world = World.draw(random)
    phi_NAd = features(PAIRS, random)
    chosen, rejected = world.pairs(phi_NAd, random)
    one, two = (sft(phi_NAd[half::2], chosen[half::2]) for half in (0, 1))
    test_NAd = features(HELD_OUT, random)
    expected_NA = world.chosen(test_NAd)

    def value(theta: Tensor) -> float:
        return float(likelihood(theta, test_NAd, expected_NA))

    runs = [(alpha, *parents) for parents in ((one, two), (two, one)) for alpha in ALPHAS]
    start_Rd = torch.stack([first for _, first, _ in runs])
    reference_Rd = torch.stack([alpha * first + (1 - alpha) * second for alpha, first, second in runs])
    path = dpo(start_Rd, reference_Rd, of(phi_NAd, chosen) - of(phi_NAd, rejected), beta)
    before = [value(first) for _, first, _ in runs]
    changes = np.array([[value(theta) for theta in theta_Rd] for theta_Rd in path]) - before
    return np.array([value(one), value(two), value((one + two) / 2)]), changes.T.reshape(2, len(ALPHAS), -1).mean(
        axis=0
    )


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the first axis, and half the width of its 95 % interval."""
    return values.mean(axis=0), 1.96 * values.std(axis=0, ddof=1) / np.sqrt(len(values))


def draw(changes: np.ndarray) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    less = changes - changes[:, :1]
    ticks = [*map(str, MOMENTS), "optimum"]
    for number, alpha in enumerate(ALPHAS):
        name = f"α = {alpha:g}" + {1.0: " (DPO)", 0.5: " (SALSA)", 0.0: " (SFT2)"}.get(alpha, "")
        left.plot(ticks, changes.mean(axis=0)[number], "o-", label=name, color=f"C{number}")
        mean, half = interval(less[:, number])
        right.plot(ticks, mean, "o-", color=f"C{number}")
        right.fill_between(ticks, mean - half, mean + half, color=f"C{number}", alpha=0.15)
    left.set(xlabel="steps of DPO", ylabel="nats", title="Change of held-out log π(chosen)")
    right.set(xlabel="steps of DPO", ylabel="nats", title="The same less that of α = 1, 95 % intervals")
    left.legend(fontsize=8)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "salsa_loglinear.png", dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer worlds, and nothing is written")
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--beta", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the vectors are short
    began = time.perf_counter()
    worlds = range(8 if args.quick else args.worlds)
    found = [one_world(seed, args.beta) for seed in tqdm(worlds, desc="Worlds", delay=2)]
    values, changes = (np.stack(part) for part in zip(*found, strict=True))
    gain, half = interval(values[:, 2] - values[:, :2].mean(axis=1))
    below = int((values[:, 2] > values[:, :2].max(axis=1)).sum())
    head = ["reference", *(f"{step} steps" if step > 1 else "1 step" for step in MOMENTS), "optimum"]
    rows = [["α = 1 (DPO)", *(f"{mean:.4f}" for mean in changes[:, 0].mean(axis=0))]]
    for number, alpha in list(enumerate(ALPHAS))[1:]:
        pairs = zip(*interval(changes[:, number] - changes[:, 0]), strict=True)
        rows.append([f"α = {alpha:g}, less that", *(f"{mean:+.4f} ± {half:.4f}" for mean, half in pairs)])
    text = table(head, rows)
    text += (
        f"\n\nChange of the held-out log π(chosen), nats, mean over {len(found)} worlds with 95 % intervals; "
        f"β = {args.beta:g}, {PAIRS} pairs, d = {D}, {ACTIONS} actions. The soup (α = ½) lies "
        f"{gain:.4f} ± {half:.4f} nats above the mean of its parents, and above both in {below} worlds.\n\n"
        "![SALSA in the log-linear setting](images/salsa_loglinear.png)"
    )
    print(text)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if not args.quick:
        draw(changes)
        put("salsa_loglinear", text)


if __name__ == "__main__":
    main()
