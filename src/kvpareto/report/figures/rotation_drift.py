"""Error of a rotated key against its age, by the way it is rotated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import bottom_legend, label_left
from kvpareto.report.rows import check_rows
from kvpareto.report.strategies import panel_blocks
from kvpareto.report.style import GREY, theme

_INK = sns.color_palette("colorblind").as_hex()
_WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "cumulative": (
        "by one position at every token",
        {"color": _INK[3], "marker": "s", "ls": "-"},
    ),
    "float32 angle": (
        "once, angle in float32",
        {"color": _INK[1], "marker": "^", "ls": (0, (4, 1.5))},
    ),
    "pristine": (
        "once, from the key as it arrived, angle in float64 (the ring)",
        {"color": _INK[0], "marker": "o", "ls": "-"},
    ),
}
_ROUNDING = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance between 1 and the next number: one rounding is at most this, relative."""

_LOST = 1.0
"""An error as large as the key: nothing is left of it."""


def error_against_age(drift: pd.DataFrame, *, title: str) -> Figure:
    """Relative error of a key against its age, both logarithmic, a panel per dtype.

    Args:
        drift: `dtype`, `way` (`cumulative`, `pristine` or `float32 angle`), `age` in tokens,
            `error` relative to the norm of the key as float64 rotates it.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or a way is unknown.
    """
    check_rows(drift, "dtype way age error")
    unknown = sorted(set(drift["way"]) - set(_WAYS))
    if unknown:
        raise ValueError(f"no such way to rotate: {', '.join(unknown)}; known: {', '.join(_WAYS)}")
    known = drift["error"].gt(0) & drift["age"].gt(0)
    shown = drift[known & np.isfinite(drift["error"])]
    exact = int((drift["error"] == 0).sum())
    notes = [f"{exact} errors of zero have no place on a logarithmic axis."] if exact else []
    dtypes = [name for name in _ROUNDING if name in set(shown["dtype"])]
    with theme():
        figure, panels = panel_blocks(dtypes or [""], title, height=4.2, below=1.85)
        axes = [own for (own,) in panels]
        if shown.empty:
            return empty_figure(figure, axes[0], notes)
        for own, dtype in zip(axes, dtypes, strict=True):
            _draw_dtype(own, shown[shown["dtype"] == dtype], _ROUNDING[dtype])
            _limits(own, shown)
        label_left(figure, axes, "relative error of the key (log.)")
        here = [way for way in _WAYS if way in set(shown["way"])]
        handles = [Line2D([], [], label=_WAYS[way][0], ms=6, **_WAYS[way][1]) for way in here]
        one = Line2D([], [], color=GREY, ls=(0, (1, 1.5)), label="one rounding")
        bottom_legend(figure, [*handles, one], "rotated", 2, 2.4, y=0.3)
        write_notes(figure, notes)
    return figure


def _draw_dtype(axes: Axes, rows: pd.DataFrame, rounding: float) -> None:
    axes.axhline(rounding, color=GREY, ls=(0, (1, 1.5)), lw=1.4, zorder=1)
    axes.axhline(_LOST, color=GREY, lw=1, zorder=1)
    for way, (_, look) in _WAYS.items():
        line = rows[rows["way"] == way].sort_values("age")
        axes.plot(line["age"], line["error"], ms=5, lw=1.7, **look)


def _limits(axes: Axes, shown: pd.DataFrame) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(max(1, shown["age"].min()) / 1.6, 1.6 * shown["age"].max())
    axes.set_ylim(shown["error"].min() / 4, max(4.0, 2 * shown["error"].max()))
    axes.xaxis.set_major_locator(LogLocator(base=100))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("age of the key (tokens, log.)")
    words: dict[str, Any] = {"fontsize": 10, "color": GREY, "va": "bottom", "ha": "left"}
    axes.text(0.015, 1.1 * _LOST, "nothing left", transform=axes.get_yaxis_transform(), **words)
