"""Forward and backward time of attention, and their ratio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import bottom_legend
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import plain
from kvpareto.report.strategies import panel_blocks
from kvpareto.report.style import GREY, backend_styles, reach, theme

SOURCE = "source, on its machine"
SOURCE_LENGTH, SOURCE_FORWARD_MS, SOURCE_BACKWARD_MS = 32, 17.01, 99.38
"""Of the sources' module, embedding 256: the attention changelog, benchmarks."""

_PARTS = ("training_forward_ms", "backward_ms")


def forward_and_backward(attention: pd.DataFrame, *, title: str) -> Figure:
    """Both times of every backend on one logarithmic axis, a panel per length.

    The bar from forward to backward is as long as their ratio, which stands beside it.

    Args:
        attention: the `attention` table. Columns used: `backend`, `length`, `dtype`, `measure`
            (`training_forward_ms`, `backward_ms`, `backward_ratio`), `value`, `lo`, `hi`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    check_rows(attention, "backend length dtype measure value lo hi status")
    rows = attention[attention["measure"].isin([*_PARTS, "backward_ratio"])]
    rows = rows.assign(name=rows["backend"] + ", " + rows["dtype"])
    shown, missing = drawable(rows, ["value"])
    notes = missing_note(missing["name"], missing)
    lengths = sorted(shown["length"].unique())
    order = list(backend_styles(shown["backend"]))
    ranked = sorted(shown["name"].unique(), key=lambda name: order.index(name.split(",")[0]))
    names = [*ranked, SOURCE] if SOURCE_LENGTH in lengths else ranked
    times = shown.loc[shown["measure"].isin(_PARTS), "value"]
    with theme():
        titles = [f"{length} tokens" for length in lengths]
        figure, panels = panel_blocks(
            titles or [""], title, left=0.17, height=0.5 + 0.4 * len(names), below=1.35
        )
        if shown.empty:
            return empty_figure(figure, panels[0][0], notes)
        for length, (axes,) in zip(lengths, panels, strict=True):
            _draw_pairs(axes, shown[shown["length"] == length], names)
            if length == SOURCE_LENGTH:
                _draw_pair(
                    axes,
                    names.index(SOURCE),
                    [(SOURCE_FORWARD_MS,) * 3, (SOURCE_BACKWARD_MS,) * 3],
                    f"{SOURCE_BACKWARD_MS / SOURCE_FORWARD_MS:.2f}x",
                    GREY,
                )
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.grid(visible=False, axis="y")
            axes.set_xscale("log")
            axes.set_xlim(0.6 * times.min(), 14 * max(times.max(), SOURCE_BACKWARD_MS))
            axes.xaxis.set_major_locator(LogLocator(base=10))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel("time (ms, logarithmic)")
        handles = [
            Line2D([], [], ls="none", marker="o", ms=8, color="black", mfc=fill, label=label)
            for fill, label in (("white", "forward"), ("black", "backward: all gradients"))
        ]
        bottom_legend(figure, handles, "", 2, handlelength=1.2)
        write_notes(figure, notes)
    return figure


def _draw_pairs(axes: Axes, panel: pd.DataFrame, names: list[str]) -> None:
    styles = backend_styles(panel["backend"])
    for name, own in panel.groupby("name", sort=False):
        values = own.set_index("measure")[["value", "lo", "hi"]].astype(float)
        ratio, lo, hi = values.loc["backward_ratio"].to_numpy(np.float64)
        said = f"{ratio:.2f}x" + ("" if np.isnan(lo) else f" [{lo:.2f}, {hi:.2f}]")
        color = styles[own["backend"].iloc[0]].color
        _draw_pair(axes, names.index(str(name)), values.loc[list(_PARTS)].to_numpy(), said, color)


def _draw_pair(axes: Axes, place: int, parts: Any, said: str, color: str) -> None:
    """Forward and backward, each as (estimate, lower, upper)."""
    (ahead, *_), (back, *_) = parts
    rightmost = float(np.nanmax(parts))
    axes.plot([ahead, back], [place, place], color=color, lw=3, alpha=0.35, zorder=2)
    for (value, lo, hi), fill in zip(parts, ("white", color), strict=True):
        axes.errorbar(
            [value],
            [place],
            xerr=reach([value], [lo], [hi]),
            color=color,
            marker="o",
            ms=8,
            mfc=fill,
            elinewidth=1.3,
            capsize=2.5,
            zorder=3,
        )
    axes.annotate(
        said,
        (rightmost, place),
        (8, 0),
        textcoords="offset points",
        va="center",
        fontsize=10,
        color="#333333",
    )
