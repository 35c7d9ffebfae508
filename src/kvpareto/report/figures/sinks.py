"""Perplexity change against the number of sinks, for strict streaming."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import (
    BUDGETS,
    bottom_legend,
    dodge,
    draw_points,
    finish_panels,
    panels_per_cap,
)
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import Scale
from kvpareto.report.style import theme

REFERENCES = {
    "ppl_delta_pct": "against recompute",
    "ppl_delta_strict_pct": "against strict streaming with the yardstick's sinks",
}


def ppl_against_sinks(eviction: pd.DataFrame, *, title: str) -> Figure:
    """Perplexity change against S for strict streaming of one model and text, a panel per cap.

    Two references: recompute, whose thinned positions leave wide intervals, and strict streaming
    with the yardstick's sinks at the same cap, on all scored tokens.

    Args:
        eviction: rows of the `eviction` table. Columns used: `policy` (only `start_recent` is
            drawn), `cap`, `cap_on`, `ppl_delta_pct`, `ppl_delta_strict_pct` and their bounds,
            `status`, and, joined from setting.json, `sinks` (S). A budget (cap and cap_on) with one
            S is left out.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(
        eviction,
        "policy cap cap_on sinks ppl_delta_pct ppl_delta_strict_pct status",
        "ppl_delta ppl_delta_strict",
    )
    strict = eviction[eviction["policy"] == "start_recent"]
    several = strict.groupby(["cap", "cap_on"])["sinks"].transform("nunique") > 1
    rows = strict[several & strict["cap_on"].isin(BUDGETS)]
    shown, missing = drawable(rows, list(REFERENCES))
    names = [
        f"S{s:g} at cap {cap:g}" for s, cap in zip(missing["sinks"], missing["cap"], strict=True)
    ]
    notes = missing_note(names, missing)
    numbers = sorted(shown["sinks"].unique())
    budgets = [budget for budget in BUDGETS if budget in set(shown["cap_on"])]
    with theme():
        blue, orange = sns.color_palette("colorblind", 2).as_hex()
        looks = {
            (value, cap_on): {
                "color": color,
                "marker": marker,
                "mfc": "white" if cap_on == "peak" else color,
                "ls": "-" if cap_on == "post_prune" else (0, (4, 1.5)),
                "lw": 1.6,
                "ms": 7,
            }
            for value, color, marker in zip(REFERENCES, (orange, blue), "so", strict=True)
            for cap_on in budgets
        }
        figure, panels = panels_per_cap(shown["cap"], title, len(looks))
        if shown.empty:
            return empty_figure(figure, panels[0][1], notes)
        for cap, axes in panels:
            panel = shown[shown["cap"] == cap].sort_values("sinks")
            for place, ((value, cap_on), look) in enumerate(looks.items()):
                line = panel[panel["cap_on"] == cap_on]
                # Categories: on a scale that holds both 0 and 64, 0, 1 and 4 would be one place.
                x = line["sinks"].map(numbers.index)
                draw_points(axes, x, line, value, look, dodge(axes, place, len(looks)))
            axes.set_xlim(-0.5, len(numbers) - 0.5)
            axes.xaxis.set_major_locator(FixedLocator(range(len(numbers))))
            axes.set_xticklabels([f"{number:g}" for number in numbers])
            axes.set_xlabel("sinks S (entries)")
        bounds = [
            f"{name.removesuffix('_pct')}_{end}" for name in REFERENCES for end in ("lo", "hi")
        ]
        # Whole intervals: that they hold one another is what there is to see.
        ends = shown[[*REFERENCES, *bounds]].to_numpy(float).ravel()
        ends = ends[np.isfinite(ends)]
        scale = Scale.around(ends, ends, ends, logarithmic=False)
        finish_panels(figure, panels, scale, "perplexity change")
        handles = [
            Line2D([], [], label=f"{REFERENCES[value]}, {BUDGETS[cap_on]}", **look)
            for (value, cap_on), look in looks.items()
        ]
        bottom_legend(figure, handles, "reference, budget", 1, handlelength=2.6)
        write_notes(figure, notes)
    return figure
