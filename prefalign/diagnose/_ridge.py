"""Held-out margins where features are many and pairs few: ridge regression, every pair left out in closed form.

Shapes: n pairs, d features, r singular values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._mixture import Array

# In units of the mean squared length of a pair's difference: from hardly any pull to one that leaves a mean.
PENALTIES = tuple(float(x) for x in np.geomspace(1e-2, 1e4, 25))


def leave_out(differences: Array, group: NDArray[np.intp]) -> Array:
    """Held-out margins (n,) of the ridge regression of +1 on the differences, all of a pair's copies left out with it.

    Squared error is no likelihood, but exchanging a pair turns its gradient round: flips shrink the fitted direction by
    1 - 2 eps and do not bend it. So nothing is learnt about eps here, and the penalty may be chosen by the same
    left-out errors: 25 numbers are tried, by closed form, and no folds are drawn.

    With H = X (X'X + lambda I)^-1 X', f = H 1 and B the rows of one pair, the errors of B left out are
    (I - H_BB)^-1 (1 - f_B).

    Args:
        differences: Features of chosen minus rejected, (n, d).
        group: The number of each pair's group, 0 to the number of groups - 1; copies and exchanges of a pair share one.

    Source: Allen 1974, the PRESS statistic, for one row at a time.
    """
    left, singular, _ = np.linalg.svd(differences, full_matrices=False)  # (n, r), (r,)
    keep = singular > 1e-8 * singular[0]
    left, singular = left[:, keep], singular[keep]
    size = float((singular**2).sum()) / len(differences)
    projected = left.sum(axis=0)
    several = [np.flatnonzero(group == one) for one in np.flatnonzero(np.bincount(group) > 1)]
    best: tuple[float, Array] | None = None
    for penalty in PENALTIES:
        shrunk = singular**2 / (singular**2 + penalty * size)
        errors = 1.0 - left @ (shrunk * projected)
        out = errors / (1.0 - left**2 @ shrunk)
        for rows in several:
            block = (left[rows] * shrunk) @ left[rows].T
            out[rows] = np.linalg.solve(np.eye(len(rows)) - block, errors[rows])
        score = float((out**2).mean())
        if best is None or score < best[0]:
            best = (score, 1.0 - out)
    assert best is not None
    return best[1]
