"""The loss token by token, with marks where entries were evicted."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kvpareto.report.notes import write_notes
from kvpareto.report.panels import bottom_legend, label_left
from kvpareto.report.rows import check_rows
from kvpareto.report.style import GREY, theme

SMOOTH = 16
"""Tokens of the trailing mean: it looks back only, so nothing shows before its cause."""


def nll_trace(traces: Mapping[str, pd.DataFrame], *, title: str) -> Figure:
    """Difference of loss to strict streaming along one document, a panel per arm, shared axes.

    Args:
        traces: for each arm's name the tokens of `merged.trace_frame`: `position`, `pruned`,
            `nll_nats`, `nll_nats_reference`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or there is no arm.
    """
    if not traces:
        raise ValueError("a trace needs at least one arm")
    with theme():
        height = 1.65 + 1.85 * len(traces)
        figure = Figure(figsize=(12.8, height))
        figure.suptitle(title, x=0.012, y=1 - 0.2 / height, ha="left", weight="bold", fontsize=13)
        grid = figure.subplots(len(traces), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        figure.subplots_adjust(
            left=0.09, right=0.985, top=1 - 0.8 / height, bottom=1.2 / height, hspace=0.28
        )
        red = sns.color_palette("colorblind").as_hex()[3]
        for axes, (name, trace) in zip(grid, traces.items(), strict=True):
            check_rows(trace, "position pruned nll_nats nll_nats_reference")
            trace = trace.sort_values("position")
            smooth = (trace["nll_nats"] - trace["nll_nats_reference"]).rolling(SMOOTH).mean()
            for prune in trace.loc[trace["pruned"], "position"]:
                axes.axvline(prune + 0.5, color="#ababab", lw=0.8, zorder=1)
            axes.axhline(0, color=GREY, lw=1, zorder=2)
            axes.fill_between(trace["position"], 0, smooth, color=red, alpha=0.2, lw=0, zorder=2)
            axes.plot(trace["position"], smooth, color=red, lw=1.4, zorder=3)
            axes.set_title(name, loc="left", fontsize=11)
            axes.grid(visible=False, axis="x")
        first = next(iter(traces.values()))["position"]
        if len(first):
            grid[-1].set_xlim(first.min(), first.max())
        grid[-1].set_xlabel("token index in the document")
        label_left(figure, grid.tolist(), "loss over strict\nstreaming (nats)")
        handles = [
            Line2D([], [], color=red, lw=1.4, label=f"mean of the last {SMOOTH} tokens"),
            Line2D([], [], color="#9a9a9a", lw=0.9, label="prune"),
        ]
        bottom_legend(figure, handles, "", 2, handlelength=2.0)
        write_notes(figure, [])
    return figure
