"""Maximum likelihood of a linear reward and a constant flip rate, and the flip rate that margins alone tell.

The model of a pair with feature difference x (chosen minus rejected) whose label may be flipped:
P(label) = (1 - eps) * sigmoid(theta . x) + eps * sigmoid(-theta . x).

Shapes: n pairs, d features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..data import HIGHEST_RATE

Array = NDArray[np.float64]

# Half the 95 % quantile of chi-square with one degree of freedom: the drop in log-likelihood that bounds an interval.
_DROP = 1.9207
_LOG_SCALES = np.linspace(-4.0, 4.0, 81)
_MOST_NOISE = 0.499
_RATES = np.linspace(0.0, HIGHEST_RATE, 99)
# More margins than this are read in as many groups of neighbours: the likelihood is smooth in the margin.
_GROUPS = 1000


def sigmoid(values: Array) -> Array:
    """The logistic function, without overflow."""
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * values))
    return result


def likelihood(margins: Array, rate: float) -> Array:
    """P(label) of each pair under the mixture, shape (n,)."""
    clean = sigmoid(margins)
    mixed: Array = (1.0 - rate) * clean + rate * (1.0 - clean)
    return np.maximum(mixed, 1e-300)


def fit_jointly(differences: Array, ridge: float, steps: int = 60) -> tuple[Array, float]:
    """The reward's weights (d,) and the flip rate that maximise the likelihood minus ridge/2 * |theta|^2.

    Fisher scoring in both together: in turn they creep along a ridge, since more noise and a larger reward say nearly
    the same.
    """
    count = differences.shape[1]
    weights, rate = np.zeros(count), 0.2

    def value(theta: Array, eps: float) -> float:
        return float(np.log(likelihood(differences @ theta, eps)).sum() - 0.5 * ridge * theta @ theta)

    here = value(weights, rate)
    for _ in range(steps):
        clean = sigmoid(differences @ weights)
        mixed = likelihood(differences @ weights, rate)
        slopes = np.column_stack(
            [differences * ((1.0 - 2.0 * rate) * clean * (1.0 - clean))[:, None], 1.0 - 2.0 * clean]
        )
        gradient = slopes.T @ (1.0 / mixed)
        gradient[:count] -= ridge * weights
        information = (slopes / np.maximum(mixed * (1.0 - mixed), 1e-12)[:, None]).T @ slopes
        information[np.diag_indices_from(information)] += 1e-8
        information[np.arange(count), np.arange(count)] += ridge
        outward = (rate <= 0.0 and gradient[-1] < 0.0) or (rate >= _MOST_NOISE and gradient[-1] > 0.0)
        free = count if outward else count + 1
        step = np.zeros(count + 1)
        step[:free] = np.linalg.solve(information[:free, :free], gradient[:free])
        share = 1.0
        while True:
            moved = weights + share * step[:count], min(max(rate + share * float(step[-1]), 0.0), _MOST_NOISE)
            there = value(*moved)
            if there >= here - 1e-12 or share < 1e-4:
                break
            share /= 2
        weights, rate = moved
        gained, here = there - here, there
        if gained < 1e-7:
            break
    return weights, rate


def profile_rate(margins: Array) -> tuple[float, float, float, float]:
    """The flip rate that held-out margins tell: (rate, low, high, scale).

    The margins' scale is fitted too: a model may be over- or under-confident. The bounds are those of the 95 %
    likelihood-ratio interval.
    """
    grouped, counts = _grouped(margins)
    clean = sigmoid(np.outer(np.exp(_LOG_SCALES), grouped))  # (scales, groups)
    best, at = np.empty(len(_RATES)), np.empty(len(_RATES))
    for index, rate in enumerate(_RATES):
        sums = np.log(np.maximum(rate + (1.0 - 2.0 * rate) * clean, 1e-300)) @ counts
        best[index], at[index] = _vertex(sums)
    top = int(best.argmax())
    inside = _RATES[best >= best[top] - _DROP]
    return float(_RATES[top]), float(inside.min()), float(inside.max()), float(np.exp(at[top]))


def _grouped(margins: Array) -> tuple[Array, Array]:
    """Means of neighbouring margins, and how many each stands for; every margin by itself where there are few."""
    if len(margins) <= _GROUPS:
        return margins, np.ones(len(margins))
    edges = np.linspace(0, len(margins), _GROUPS + 1).astype(int)
    counts = np.diff(edges).astype(float)
    return np.add.reduceat(np.sort(margins), edges[:-1]) / counts, counts


def _vertex(sums: Array) -> tuple[float, float]:
    """The largest log-likelihood and its log-scale, by the parabola through the best scale and its neighbours."""
    index = int(sums.argmax())
    if 0 < index < len(sums) - 1:
        before, here, after = (float(x) for x in sums[index - 1 : index + 2])
        bend = before - 2.0 * here + after
        if bend < 0.0:
            shift = 0.5 * (before - after) / bend
            step = float(_LOG_SCALES[1] - _LOG_SCALES[0])
            return here - 0.25 * (before - after) * shift, float(_LOG_SCALES[index]) + shift * step
    return float(sums[index]), float(_LOG_SCALES[index])


def holder_rate(margins: Array, rate: float, power: float = 1.0) -> tuple[float, float]:
    """The flip rate by matching a moment of p^power, with its standard error.

    With p the clean model's probability of the label, E[p^power] over observed labels is
    (1 - eps) * A + eps * B for A = sum_y p(y)^(1 + power) and B = sum_y p(y)^power * (1 - p(y)), so
    eps = (A - mean p^power) / (A - B).

    The error is that of the stacked estimating equations of the margins' scale, the likelihood's rate and this rate:
    the scale was fitted too.

    Args:
        margins: Calibrated held-out margins, shape (n,).
        rate: The rate of `profile_rate`, which the scale was fitted with.
        power: Which moment, > 0.
    """

    def gap_and_excess(scale: float) -> tuple[Array, Array]:
        p = sigmoid(scale * margins)
        q = 1.0 - p
        full = p ** (1 + power) + q ** (1 + power)
        return full - (p**power * q + q**power * p), full - p**power

    gap, excess = gap_and_excess(1.0)
    if gap.mean() <= 1e-9 or rate >= _RATES[-1]:
        return float("nan"), float("inf")  # no margin tells the labels apart
    holder = float(excess.mean() / gap.mean())

    def equations(x: Array) -> Array:
        scale, eps, moment = float(x[0]), float(x[1]), float(x[2])
        clean, h = sigmoid(scale * margins), 1e-5
        mixed = likelihood(scale * margins, eps)
        by_scale = (np.log(likelihood((scale + h) * margins, eps)) - np.log(likelihood((scale - h) * margins, eps))) / (
            2 * h
        )
        gap, excess = gap_and_excess(scale)
        return np.stack([by_scale, (1.0 - 2.0 * clean) / mixed, excess - moment * gap])  # (equations, n)

    point, step = np.array([1.0, rate, holder]), 1e-4
    moves = step * np.eye(3)
    columns = [(equations(point + move) - equations(point - move)).mean(axis=1) / (2 * step) for move in moves]
    slope, spread = np.stack(columns, axis=1), np.atleast_2d(np.cov(equations(point)))
    # At rate 0 the likelihood's rate may or may not move with the data: the larger error is the safe one.
    frees = [[0, 1, 2]] if rate > 0 else [[0, 1, 2], [0, 2]]
    variances = []
    for free in frees:
        inverse = np.linalg.pinv(slope[np.ix_(free, free)])
        variances.append(float((inverse @ spread[np.ix_(free, free)] @ inverse.T)[-1, -1]) / len(margins))
    return holder, float(np.sqrt(max(*variances, 0.0)))


def cross_fit(differences: Array, folds: int, ridges: tuple[float, ...], seed: int) -> tuple[Array, float]:
    """Held-out margins (n,) of the ridge whose held-out likelihood is highest, and that ridge."""
    group = copies(differences)
    # Where there are fewer different pairs than folds, copies cannot be kept together.
    group = group if group.max() + 1 >= folds else np.arange(len(differences))
    fold = (np.random.default_rng(seed).permutation(int(group.max()) + 1) % folds)[group]
    best: tuple[float, Array, float] | None = None
    with tqdm(total=len(ridges) * folds, desc="Fitting rewards", unit=" fits", delay=2, leave=False) as bar:
        for ridge in ridges:
            margins, score = np.empty(len(differences)), 0.0
            for held in range(folds):
                out = fold == held
                weights, rate = fit_jointly(differences[~out], ridge)
                margins[out] = differences[out] @ weights
                score += float(np.log(likelihood(margins[out], rate)).sum())
                bar.update()
            if best is None or score > best[0]:
                best = (score, margins, ridge)
    assert best is not None
    return best[1], best[2]


def copies(differences: Array) -> NDArray[np.intp]:
    """The number of each pair's group (n,): a pair, its copies and its exchanges share one, and so a fold."""
    numbers: dict[bytes, int] = {}
    rows = np.round(np.abs(differences), 3)
    return np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in rows])
