"""Time of attention against length, log-log."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import label_left
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import plain
from kvpareto.report.strategies import panel_blocks
from kvpareto.report.style import GREY, backend_styles, reach, theme

SOURCE_FORWARD_MS = {8: 5.04, 16: 8.57, 32: 14.86, 64: 31.52, 128: 71.34}
"""Of the sources' module, embedding 256, on their machine: the attention changelog, benchmarks."""


def time_against_length(attention: pd.DataFrame, *, title: str) -> Figure:
    """Forward time of every backend, a panel per dtype; the legend has the growth exponents.

    Args:
        attention: the `attention` table. Columns used: `backend`, `length`, `dtype`, `measure`
            (`forward_ms`, `growth_exponent`), `value`, `lo`, `hi`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing.
    """
    check_rows(attention, "backend length dtype measure value lo hi status why")
    rows = attention[attention["measure"] == "forward_ms"]
    shown, missing = drawable(rows, ["value"])
    names = missing["backend"] + " in " + missing["dtype"]
    notes = missing_note(names, missing)
    dtypes = list(rows["dtype"].unique())
    with theme():
        figure, panels = panel_blocks(dtypes or [""], title, height=4.6, below=1.0)
        if shown.empty:
            return empty_figure(figure, panels[0][0], notes)
        exponents = attention[attention["measure"] == "growth_exponent"]
        for dtype, (axes,) in zip(dtypes, panels, strict=True):
            own = exponents[exponents["dtype"] == dtype]
            _draw_lines(axes, shown[shown["dtype"] == dtype], own)
            if dtype == "float32":
                _draw_source(axes)
            _length_axis(axes, sorted({*shown["length"], *SOURCE_FORWARD_MS}))
            highest = max(shown["value"].max(), *SOURCE_FORWARD_MS.values())
            axes.set_ylim(shown["value"].min() / 1.5, 60 * highest)
            since = "".join(f", {why}" for why in own["why"].unique())
            axes.legend(
                loc="upper left", title=f"growth exponent{since}", alignment="left", frameon=False
            )
        label_left(figure, [panels[0][0]], "forward pass (ms, logarithmic)")
        write_notes(figure, notes)
    return figure


def _draw_lines(axes: Axes, shown: pd.DataFrame, exponents: pd.DataFrame) -> None:
    for backend, style in backend_styles(shown["backend"]).items():
        line = shown[shown["backend"] == backend].sort_values("length")
        own = exponents[exponents["backend"] == backend]
        said = [
            f"  {row['value']:.2f} [{row['lo']:.2f}, {row['hi']:.2f}]"
            for row in own.to_dict("records")
        ]
        axes.errorbar(
            line["length"],
            line["value"],
            yerr=reach(line["value"], line["lo"], line["hi"]),
            label=f"{backend}{''.join(said)}",
            color=style.color,
            marker=style.marker,
            mfc="white" if style.hollow else style.color,
            ms=style.size - 1,
            lw=1.6,
            elinewidth=1.3,
            capsize=2.5,
        )


def _draw_source(axes: Axes) -> None:
    look: dict[str, Any] = {"color": GREY, "ls": (0, (1, 2)), "lw": 1.2, "marker": "o", "ms": 7}
    lengths, times = zip(*SOURCE_FORWARD_MS.items(), strict=True)
    slope, _ = np.polyfit(np.log(lengths), np.log(times), 1)
    said = f"source, on its machine  {slope:.2f} over these five"
    axes.plot(lengths, times, **look, mfc="white", label=said)


def _length_axis(axes: Axes, lengths: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(lengths))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(base=10))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.set_xlabel("length (tokens, logarithmic)")
