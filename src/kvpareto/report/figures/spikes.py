"""The loss around prunes, against what chance gives."""

from __future__ import annotations

import math
import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from kvpareto.report.marks import shared_parts, short_settings
from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import BUDGETS, bottom_legend, label_left
from kvpareto.report.rows import check_rows, usual_lazy
from kvpareto.report.style import GREY, policy_styles, theme

MOST_PANELS = 9


def loss_around_prunes(curves: pd.DataFrame, spikes: pd.DataFrame, *, title: str) -> Figure:
    """Mean difference of loss to strict streaming around an arm's prunes, a panel per arm.

    At the largest cap, lazy arms come first, by cap_on and period, with the sinks and the trigger
    that most of them have; then the other policies, and the other lazy arms. Then come smaller
    caps, until there are nine panels. Arms without a cap are left out.

    Args:
        curves: of one model and text, from the event study: `policy`, `setting`, `offset` (tokens
            from a prune; token 1 is the first predicted from the pruned cache), `mean`, `null_lo`,
            `null_hi` (nats).
        spikes: the `spikes` table of these arms with the columns of `eviction` and the settings.
            Columns used: `policy`, `setting`, `cap`, `cap_on`, `period`, `sinks`, `trigger`,
            `excess`, `status`.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(curves, "policy setting offset mean null_lo null_hi")
    check_rows(spikes, "policy setting cap cap_on period sinks trigger excess status")
    studied = panel_order(spikes)
    arms = studied.head(MOST_PANELS)
    names = _panel_names(arms, shared_parts(studied))
    left_out = len(studied) - len(arms)
    notes = ["Every panel has a scale of its own. Above chance: higher than prunes at random give."]
    if left_out > 0:
        notes.append(f"{left_out} further arms are in the table of spikes.")
    with theme():
        columns = min(3, max(1, len(arms)))
        rows = max(1, math.ceil(len(arms) / columns))
        height = 1.9 + 2.55 * rows
        figure = Figure(figsize=(12.8, height))
        figure.suptitle(title, x=0.012, y=1 - 0.2 / height, ha="left", weight="bold", fontsize=13)
        grid = figure.subplots(rows, columns, squeeze=False)
        figure.subplots_adjust(
            left=0.095, right=0.985, top=1 - 0.85 / height, bottom=1.35 / height, wspace=0.25,
            hspace=0.48,
        )  # fmt: skip
        if arms.empty:
            return empty_figure(figure, grid[0, 0], [])
        blue = sns.color_palette("colorblind").as_hex()[0]
        for axes, arm, name in zip(grid.flat, arms.to_dict("records"), names, strict=False):
            mine = (curves["policy"] == arm["policy"]) & (curves["setting"] == arm["setting"])
            curve = curves[mine].sort_values("offset")
            axes.fill_between(
                curve["offset"], curve["null_lo"], curve["null_hi"], color=GREY, alpha=0.25, lw=0
            )
            axes.plot(curve["offset"], curve["mean"], color=blue, lw=1.6)
            axes.axvline(0.5, color="black", lw=1, ls=(0, (4, 2)))
            axes.axhline(0, color=GREY, lw=0.8, zorder=1)
            axes.set_xlim(curve["offset"].min(), curve["offset"].max())
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_title(name, loc="left", fontsize=11)
            said = "above chance" if arm["excess"] else "within chance"
            axes.set_title(said, loc="right", fontsize=10, weight="bold" if arm["excess"] else None)
        for axes in grid.flat[len(arms) :]:
            axes.remove()
        for axes in grid.flat[max(0, len(arms) - columns) :]:
            axes.set_xlabel("tokens from the prune")
        label_left(figure, grid[:, 0].tolist(), "loss over strict\nstreaming (nats)")
        handles = [
            Line2D([], [], color=blue, lw=1.6, label="mean over all prunes"),
            Patch(color=GREY, alpha=0.25, lw=0, label="chance: prunes shifted at random (95%)"),
            Line2D([], [], color="black", lw=1, ls=(0, (4, 2)), label="prune"),
        ]
        bottom_legend(figure, handles, "", 3, handlelength=2.0)
        write_notes(figure, notes)
    return figure


def panel_order(spikes: pd.DataFrame) -> pd.DataFrame:
    """The studied arms in the order in which they get panels."""
    arms = spikes[(spikes["status"] == "ok") & spikes["cap_on"].isin(["post_prune", "peak"])]
    policies = list(policy_styles(arms["policy"]))
    ranked = arms.assign(
        smaller_cap=-arms["cap"].astype(float),
        not_usual=np.select([usual_lazy(arms), arms["policy"] != "lazy"], [0, 1], 2),
        policy_rank=arms["policy"].map(policies.index),
        budget_rank=arms["cap_on"].map(list(BUDGETS).index),
    )
    order = ["smaller_cap", "not_usual", "policy_rank", "budget_rank", "period", "setting"]
    return ranked.sort_values(order, ignore_index=True)


def _panel_names(arms: pd.DataFrame, shared: dict[str, list[str]]) -> list[str]:
    short = short_settings(arms, shared)
    several = arms["cap"].nunique() > 1
    names = [
        f"{policy.replace('_', ' ')} {own}".strip() + (f", cap {cap}" if several else "")
        for policy, own, cap in zip(arms["policy"], short, arms["cap"], strict=True)
    ]
    return [textwrap.shorten(name, 34, placeholder=" ...") for name in names]
