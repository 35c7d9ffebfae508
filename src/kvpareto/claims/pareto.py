"""Which points of a trade-off are worth having."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def front(x: ArrayLike, y: ArrayLike) -> NDArray[np.bool_]:
    """The points that no other point dominates, when less is better on both axes.

    A point dominates another if it is no worse on both axes and better on one. Equal points do not
    dominate each other, so both stay. A point with a NaN is never on the front and dominates none.

    Args:
        x: [points], for example milliseconds per token.
        y: [points], for example perplexity change in percent.

    Returns:
        [points], true on the front.

    Raises:
        ValueError: x and y are not vectors of one length.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x {xs.shape} and y {ys.shape} must be vectors of one length")
    on_front = np.zeros(xs.shape, dtype=np.bool_)
    known = np.flatnonzero(~(np.isnan(xs) | np.isnan(ys)))
    if not known.size:
        return on_front
    columns, column = np.unique(xs[known], return_inverse=True)
    best = np.full(len(columns), np.inf)
    np.minimum.at(best, column, ys[known])
    # Least y among the points further left; nothing lies left of the first column.
    left = np.append(np.inf, np.minimum.accumulate(best)[:-1])
    level = ys[known]
    on_front[known] = (level == best[column]) & ((level < left[column]) | (column == 0))
    return on_front
