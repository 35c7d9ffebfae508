"""Perplexity change against the prune period."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import (
    BUDGETS,
    bottom_legend,
    dodge,
    draw_points,
    finish_panels,
    line_keys,
    line_looks,
    line_name,
    line_rows,
    panels_per_cap,
    period_axis,
)
from kvpareto.report.rows import check_rows, drawable, lazy_lines, missing_note, period_names
from kvpareto.report.scale import ppl_scale
from kvpareto.report.style import theme


def ppl_against_period(eviction: pd.DataFrame, *, title: str) -> Figure:
    """Perplexity change against the prune period, for one model and text, a panel per cap.

    Args:
        eviction: rows of the `eviction` table. Columns used: `policy`, `cap`, `cap_on`,
            `ppl_delta_pct`, `ppl_delta_lo`, `ppl_delta_hi`, `status`, and, joined from
            setting.json: `period` (R, tokens), `sinks` (S), `trigger` ("overflow" or "clock").
            Rows of `lazy` make the lines, one per trigger, cap_on and sinks; the `start_recent`
            row of the same cap, cap_on and sinks is the R = 1 end of each. Other policies, and
            arms without a cap, are left out.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, the rows are of several models or texts, or two arms fall
            on one place of a line.
    """
    check_rows(eviction, "policy cap cap_on period sinks trigger ppl_delta_pct status", "ppl_delta")
    # Windows of their own, not periods, tell the arms without a cap apart.
    rows = lazy_lines(eviction[eviction["cap_on"].isin(BUDGETS)])
    shown, missing = drawable(rows, ["ppl_delta_pct", "period"])
    notes = missing_note(period_names(missing), missing)
    keys = line_keys(shown)
    with theme():
        looks = line_looks(keys)
        handles = [Line2D([], [], label=line_name(key), **looks[key]) for key in keys]
        legend_rows = math.ceil(len(keys) / 3)
        figure, panels = panels_per_cap(shown["cap"], title, legend_rows)
        if shown.empty:
            return empty_figure(figure, panels[0][1], notes)
        for cap, axes in panels:
            for place, key in enumerate(keys):
                line = line_rows(shown, cap, key)
                shift = dodge(axes, place, len(keys))
                draw_points(axes, line["period"], line, "ppl_delta_pct", looks[key], shift)
            period_axis(axes, shown["period"])
        finish_panels(figure, panels, ppl_scale(shown))
        columns = math.ceil(len(keys) / legend_rows)
        bottom_legend(figure, handles, "trigger, budget, sinks", columns, handlelength=2.6)
        write_notes(figure, notes)
    return figure
