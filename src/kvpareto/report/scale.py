"""Axes that a few far-off values cannot squash, and how their ticks are spelt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scale:
    """An axis that a few far-off values cannot squash.

    Up to `limit` it is linear or, if `logarithmic`, logarithmic. Beyond it is logarithmic and
    squeezed into a fixed share of the axis, so that every point keeps a true place on one axis.

    Attributes:
        low, high: ends of the axis.
        limit: where the squeezed part begins; equal to `high` if there is none.
    """

    low: float
    limit: float
    high: float
    logarithmic: bool

    SHARE = 0.2
    """Share of the axis that the squeezed part takes."""

    @classmethod
    def around(cls, values: ArrayLike, lo: ArrayLike, hi: ArrayLike, *, logarithmic: bool) -> Scale:
        """The scale for points with intervals; NaN bounds are no bounds.

        What lies above a multiple of the 60% quantile is far off, if it is also more than 2.5
        times the largest of the rest. Intervals may widen the range, but not by more than half.
        """
        points = np.asarray(values, dtype=np.float64)
        below = np.fmin(points, np.asarray(lo, dtype=np.float64))
        above = np.fmax(points, np.asarray(hi, dtype=np.float64))
        typical = float(np.quantile(points, 0.6))
        near = points <= (2 * typical if logarithmic else 4 * max(typical, 1))
        squeezed = bool(points.max() > 2.5 * max(points[near].max(), 1e-9))
        if not squeezed:
            near = np.full(points.shape, True)
        ends = [points[near].min(), points[near].max(), below[near].min(), above[near].max()]
        least, most, lowest, highest = _base(
            np.maximum(ends, 1e-9) if logarithmic else ends, logarithmic
        )
        if not logarithmic:
            least, most = min(least, 0), max(most, 0)
        room = max(most - least, 0.1)
        start = max(min(lowest, least), least - room / 2) - 0.07 * room
        stop = min(max(highest, most), most + room / 2) + 0.07 * room
        if squeezed:
            # The nearest of the far-off points lies beyond the limit, however wide the rest is.
            stop = min(stop, (most + _base(points[~near].min(), logarithmic)) / 2)
        low, limit = (float(np.exp(end)) if logarithmic else float(end) for end in (start, stop))
        farthest = float(np.minimum(above, 1.5 * points).max())
        high = farthest * (farthest / limit) ** 0.2 if squeezed else limit
        return cls(low, limit, high, logarithmic)

    @property
    def squeezed(self) -> bool:
        return self.high > self.limit

    def forward(self, values: ArrayLike) -> Floats:
        """Place along the axis of each value."""
        shown = np.asarray(values, dtype=np.float64)
        beyond = np.log(np.maximum(shown, self.limit) / self.limit)
        return _base(np.minimum(shown, self.limit), self.logarithmic) + self._squeeze * beyond

    def inverse(self, places: ArrayLike) -> Floats:
        """Value at each place along the axis."""
        place = np.asarray(places, dtype=np.float64)
        edge = _base(self.limit, self.logarithmic)
        inside = np.minimum(place, edge)
        beyond = np.exp(np.maximum(place - edge, 0) / self._squeeze)
        return (np.exp(inside) if self.logarithmic else inside) * beyond

    @property
    def _squeeze(self) -> float:
        if not self.squeezed:
            return 1.0
        faithful = np.diff(_base([self.low, self.limit], self.logarithmic))[0]
        return float(faithful * self.SHARE / (1 - self.SHARE) / np.log(self.high / self.limit))

    def ticks(self) -> list[float]:
        if self.logarithmic and self.limit > 5 * self.low:
            inside = _ladder(self.low, self.limit, (1, 2, 3, 5))
        else:
            steps = MaxNLocator(9, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.limit)
            inside = [float(tick) for tick in steps if self.low <= tick <= self.limit]
        if not self.squeezed:
            return inside
        outside = _ladder(self.limit * 1.3, self.high, (1, 2, 5))
        if len(outside) > 4:
            outside = _ladder(self.limit * 1.3, self.high, (1,))
        return inside + outside

    def apply(
        self, axes: Axes, direction: Literal["x", "y"], spell: Callable[[float], str]
    ) -> None:
        """Set scale, range and ticks of one axis, and shade what is squeezed."""
        functions = (self.forward, self.inverse)
        if direction == "x":
            axes.set_xscale("function", functions=functions)
            axes.set_xlim(self.low, self.high)
        else:
            axes.set_yscale("function", functions=functions)
            axes.set_ylim(self.low, self.high)
        axis = axes.xaxis if direction == "x" else axes.yaxis
        axis.set_major_locator(FixedLocator(self.ticks()))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: spell(value)))
        if self.squeezed:
            shade: Any = axes.axvspan if direction == "x" else axes.axhspan
            shade(self.limit, self.high, color="black", alpha=0.055, zorder=0, lw=0)


def _base(values: ArrayLike, logarithmic: bool) -> Floats:
    shown = np.asarray(values, dtype=np.float64)
    return np.log(np.maximum(shown, 1e-12)) if logarithmic else shown


def _ladder(low: float, high: float, steps: tuple[int, ...]) -> list[float]:
    """Round numbers `step * 10^k` from `low` to `high`."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    rungs = [step * 10.0**decade for decade in decades for step in steps]
    return [rung for rung in rungs if low <= rung <= high]


def log_axis(axes: Axes, limits: tuple[float, float]) -> None:
    """A logarithmic vertical axis with plain numbers; few ticks over a wide range."""
    low, high = limits
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.yaxis.set_minor_locator(NullLocator())


def plain(value: float) -> str:
    """`2.5`, `1,000`."""
    return f"{value:,.6g}"


def signed(value: float) -> str:
    """`+2.5`, `0`, and a true minus sign."""
    return "0" if abs(value) < 1e-9 else f"{value:+,.6g}".replace("-", "\N{MINUS SIGN}")


def ppl_scale(arms: pd.DataFrame, name: str = "ppl_delta") -> Scale:
    """The linear scale for perplexity changes, the columns `<name>_pct`, `_lo` and `_hi`."""
    values, lo, hi = (arms[f"{name}_{end}"] for end in ("pct", "lo", "hi"))
    return Scale.around(values, lo, hi, logarithmic=False)


def ppl_label(scale: Scale, what: str = "perplexity change against recompute") -> str:
    """The axis label that goes with `ppl_scale`."""
    if not scale.squeezed:
        return f"{what} (%)"
    return f"{what}\n(%; squeezed, logarithmic above {signed(two_digits(scale.limit))})"


def two_digits(value: float) -> float:
    return float(f"{value:.2g}")
