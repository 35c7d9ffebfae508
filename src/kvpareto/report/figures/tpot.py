"""Time per token against the prune period."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import (
    BUDGETS,
    bottom_legend,
    dodge,
    draw_points,
    label_left,
    line_keys,
    line_rows,
    panels_per_cap,
    period_axis,
)
from kvpareto.report.rows import (
    check_rows,
    drawable,
    lazy_lines,
    missing_note,
    period_names,
    usual_lazy,
)
from kvpareto.report.scale import Scale, plain
from kvpareto.report.style import GREY, theme

_INK = sns.color_palette("colorblind").as_hex()
COLORS = {"compact": _INK[0], "soft_ring": _INK[1], "ring": _INK[2]}
"""Of the cache layouts."""


def tpot_against_period(timed: pd.DataFrame, *, title: str) -> Figure:
    """Time per token over strict streaming's against the prune period, a panel per cap.

    A line is lazy pruning in one cache layout, with the number of sinks and the trigger that most
    arms have: time depends on neither. A layout that only strict streaming has been timed in is a
    flat line with its interval; recompute, which is far away, is a note. The right-hand axis of a
    panel is the same in milliseconds: the ratio times the yardstick's median at that cap.

    Args:
        timed: the `timing` table of one model and text with the columns of `eviction` and the
            settings. Columns used: `policy`, `layout`, `cap`, `cap_on`, `period`, `sinks`,
            `trigger`, `tpot_ratio`, `tpot_ratio_lo`, `tpot_ratio_hi`, `yardstick_ms`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, the rows are of several models or texts, or two arms fall
            on one place of a line.
    """
    check_rows(
        timed,
        "policy layout cap cap_on period sinks trigger tpot_ratio yardstick_ms status",
        "tpot_ratio",
    )
    lines, flat = _lines(timed[timed["cap_on"].isin(BUDGETS) & timed["layout"].isin(COLORS)])
    shown, missing = drawable(lines, ["tpot_ratio", "period"])
    notes = missing_note(period_names(missing), missing)
    keys = [
        (layout, key) for layout in COLORS for key in line_keys(shown[shown["layout"] == layout])
    ]
    with theme():
        looks = {(layout, key): _look(layout, key[1]) for layout, key in keys}
        handles = [
            Line2D([], [], label=f"lazy, {_spelt(layout)}, {BUDGETS[key[1]]}", **looks[layout, key])
            for layout, key in keys
        ]
        handles += [
            Line2D([], [], color=COLORS[layout], lw=2, label=f"strict, {_spelt(layout)}")
            for layout in sorted(flat["layout"].unique())
        ]
        legend_rows = math.ceil(len(handles) / 2)
        figure, panels = panels_per_cap(shown["cap"], title, legend_rows)
        figure.subplots_adjust(right=0.925, wspace=0.3)
        if shown.empty:
            return empty_figure(figure, panels[0][1], notes)
        scale = _ratio_scale(pd.concat([shown, flat]))
        for cap, axes in panels:
            for place, (layout, key) in enumerate(keys):
                line = line_rows(shown[shown["layout"] == layout], cap, key)
                shift = dodge(axes, place, len(keys))
                draw_points(axes, line["period"], line, "tpot_ratio", looks[layout, key], shift)
            for one in flat[flat["cap"] == cap].to_dict("records"):
                color = COLORS[one["layout"]]
                axes.axhspan(one["tpot_ratio_lo"], one["tpot_ratio_hi"], color=color, alpha=0.15)
                axes.axhline(one["tpot_ratio"], color=color, lw=2)
            period_axis(axes, shown["period"])
            scale.apply(axes, "y", plain)
            axes.axhline(1, color=GREY, lw=1, zorder=1)
            here = timed[timed["cap"] == cap]
            _milliseconds(axes, float(here["yardstick_ms"].median()))
            _note_recompute(axes, here)
        label = "time per token: ratio to strict streaming\n(left), ms (right); logarithmic"
        label_left(figure, [axes for _, axes in panels], label)
        sinks = f"policy, cache layout, budget; S{shown['sinks'].iloc[0]:g}"
        bottom_legend(figure, handles, sinks, 2, handlelength=2.6)
        write_notes(figure, notes)
    return figure


def _lines(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Lazy arms with their strict ends, and strict arms in layouts that lazy has no times in."""
    usual = usual_lazy(rows)
    strict = (rows["policy"] == "start_recent") & rows["sinks"].isin(rows.loc[usual, "sinks"])
    rows = rows[usual | strict]
    swept = rows["layout"].isin(rows.loc[rows["policy"] == "lazy", "layout"])
    lines = [lazy_lines(part) for _, part in rows[swept].groupby("layout")]
    flat, _ = drawable(rows[~swept], ["tpot_ratio"])
    first = flat.sort_values("cap_on", key=lambda cap_on: cap_on.map(list(BUDGETS).index))
    return (
        pd.concat(lines) if lines else rows.iloc[:0],
        first.drop_duplicates(["cap", "layout"]),
    )


def _look(layout: str, cap_on: str) -> dict[str, Any]:
    return {
        "color": COLORS[layout],
        "ls": "-" if cap_on == "post_prune" else (0, (4, 1.5)),
        "lw": 1.6,
        "marker": "o" if layout == "compact" else "s",
        "mfc": "white" if cap_on == "peak" else COLORS[layout],
        "ms": 7,
    }


def _spelt(layout: str) -> str:
    return layout.replace("_", " ") + " layout"


def _ratio_scale(rows: pd.DataFrame) -> Scale:
    bounds = rows["tpot_ratio_lo"], rows["tpot_ratio_hi"]
    return Scale.around(rows["tpot_ratio"], *bounds, logarithmic=True)


def _milliseconds(axes: Axes, yardstick_ms: float) -> None:
    def ms(ratio: Any) -> Any:
        return ratio * yardstick_ms

    def ratio(ms: Any) -> Any:
        return ms / yardstick_ms

    axes.secondary_yaxis("right", functions=(ms, ratio)).set_ylabel("ms per token")


def _note_recompute(axes: Axes, here: pd.DataFrame) -> None:
    recompute, _ = drawable(here[here["policy"] == "recompute"], ["tpot_ratio"])
    for one in recompute.to_dict("records"):
        axes.text(
            0.98,
            0.97,
            f"recompute: {one['tpot_ratio']:.2g} times strict",
            transform=axes.transAxes,
            ha="right",
            va="top",
            fontsize=10,
            color="#333333",
            bbox={"fc": "white", "ec": "none", "pad": 1.5},
        )
