"""Perplexity change against the longest attended length: is it eviction, or the trained length?"""

from __future__ import annotations

import math
from typing import Any, cast

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import (
    BUDGETS,
    bottom_legend,
    draw_points,
    finish_panels,
    mark_trained_length,
    panels_per_cap,
)
from kvpareto.report.rows import (
    check_rows,
    drawable,
    missing_note,
    period_names,
    with_strict_period,
)
from kvpareto.report.scale import ppl_scale
from kvpareto.report.style import GREY, policy_styles, theme

RECENT = ("start_recent", "lazy", "slack", "max_drop")
"""Policies that keep sinks and the most recent entries, and differ in how many alone."""


def ppl_against_attended(eviction: pd.DataFrame, *, trained_length: int, title: str) -> Figure:
    """Perplexity change against the longest attended length, for one model and text.

    Args:
        eviction: rows of the `eviction` table. Columns used: `policy`, `cap`, `cap_on`,
            `peak_attended_len` (keys), `ppl_delta_pct`, `ppl_delta_lo`, `ppl_delta_hi`, `status`,
            and, joined from setting.json, `period` (R, tokens) and `sinks` (S). Drawn are the
            policies of `RECENT` with the number of sinks that most of them have; `start_recent`
            counts as R = 1. Caps without a second period are left out.
        trained_length: the model's trained length in tokens, drawn as a vertical line.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(
        eviction,
        "policy cap cap_on period sinks peak_attended_len ppl_delta_pct status",
        "ppl_delta",
    )
    known = eviction["policy"].isin(RECENT) & eviction["cap_on"].isin(BUDGETS)
    rows = with_strict_period(eviction[known])
    swept = rows.groupby("cap")["period"].transform("nunique") > 1
    rows = rows[swept]
    sinks = rows["sinks"].mode()
    rows = rows[rows["sinks"].isin(sinks[:1])]
    shown, missing = drawable(rows, ["ppl_delta_pct", "peak_attended_len", "period"])
    notes = missing_note(period_names(missing), missing)
    periods = sorted(shown["period"].unique())
    budgets = [budget for budget in BUDGETS if budget in set(shown["cap_on"])]
    with theme():
        ramp = sns.color_palette("viridis", len(periods) + 1).as_hex()
        colors = dict(zip(periods, ramp, strict=False))
        styles = policy_styles(shown["policy"])
        dot: dict[str, Any] = {"ls": "none", "ms": 8.5}
        handles = [
            Line2D([], [], marker="o", color=colors[period], label=f"R{period:g}", **dot)
            for period in periods
        ]
        shapes: dict[str, Any] = {name: style.marker for name, style in styles.items()}
        handles += [
            Line2D([], [], marker=shape, color=GREY, label=name.replace("_", " "), **dot)
            for name, shape in shapes.items()
        ]
        fill = {"post_prune": GREY, "peak": "white"}
        handles += [
            Line2D([], [], marker="o", mec=GREY, mfc=fill[cap_on], label=BUDGETS[cap_on], **dot)
            for cap_on in budgets
        ]
        legend_rows = math.ceil(len(handles) / 7)
        figure, panels = panels_per_cap(shown["cap"], title, legend_rows)
        if shown.empty:
            return empty_figure(figure, panels[0][1], notes)
        for cap, axes in panels:
            panel = shown[shown["cap"] == cap]
            for key, points in panel.groupby(["period", "cap_on", "policy"]):
                period, cap_on, policy = cast("tuple[float, str, str]", key)
                look = {
                    "color": colors[period],
                    "marker": shapes[policy],
                    "mfc": "white" if cap_on == "peak" else colors[period],
                    "mew": 1.6,
                    "ls": "none",
                    "ms": 7.5,
                }
                draw_points(axes, points["peak_attended_len"], points, "ppl_delta_pct", look)
            mark_trained_length(axes, panel["peak_attended_len"], trained_length)
            axes.set_xlabel("peak attended length (keys)")
        finish_panels(figure, panels, ppl_scale(shown))
        columns = math.ceil(len(handles) / legend_rows)
        heading = f"prune period (tokens), policy, budget; S{sinks.iloc[0]:g}"
        bottom_legend(figure, handles, heading, columns, handlelength=1.0)
        write_notes(figure, notes)
    return figure
