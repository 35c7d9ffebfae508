"""The Pareto figure: time per token against perplexity change."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kvpareto.report.labels import place_labels
from kvpareto.report.marks import (
    arm_label,
    by_importance,
    draw_arm,
    draw_front,
    intervals,
    join_layouts,
    on_front,
    pareto_legends,
    shared_parts,
    short_settings,
)
from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import Scale, plain, ppl_label, ppl_scale, signed, two_digits
from kvpareto.report.style import GREY, PLAIN_LAYOUTS, policy_styles, theme


def pareto_figure(arms: pd.DataFrame, *, title: str) -> Figure:
    """Time per token against perplexity change, for one model, text and cap.

    The front goes through the arms within the budget that no other such arm dominates. Arms over
    the budget are shown pale, without labels, and keep nobody off the front.

    Args:
        arms: one row per arm and cache layout, from `merged.pareto_frame`. Columns used: `policy`,
            `setting` (the id, for labels), `layout`, `within` (the budget), `tpot_ms`,
            `tpot_ms_lo`, `tpot_ms_hi` (ms per token), `ppl_delta_pct`, `ppl_delta_lo`,
            `ppl_delta_hi` (percent against recompute), `status` ("ok" only if quality and timing
            both are; "not timed" for arms whose time nobody asked for). Bounds may be NaN.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(
        arms, "policy setting layout within tpot_ms ppl_delta_pct status", "tpot_ms ppl_delta"
    )
    untimed = arms["status"] == "not timed"
    arms, notes = arms[~untimed], _untimed_note(int(untimed.sum()))
    shared = shared_parts(arms)
    arms = arms.assign(name=short_settings(arms, shared))
    shown, missing = drawable(arms, ["tpot_ms", "ppl_delta_pct"])
    names = [" ".join(name) for name in zip(missing["policy"], missing["name"], strict=True)]
    notes = missing_note(names, missing) + notes
    with theme():
        figure = Figure(figsize=(12.8, 8.0))
        axes = figure.add_axes((0.095, 0.125, 0.64, 0.825))
        axes.set_title(title, loc="left", weight="bold")
        if shown.empty:
            return empty_figure(figure, axes, notes)
        x = Scale.around(
            shown["tpot_ms"], shown["tpot_ms_lo"], shown["tpot_ms_hi"], logarithmic=True
        )
        y = ppl_scale(shown)
        x.apply(axes, "x", plain)
        y.apply(axes, "y", signed)
        squeezed = f"; squeezed above {plain(two_digits(x.limit))}" if x.squeezed else ""
        axes.set_xlabel(f"time per output token (ms, logarithmic{squeezed})")
        axes.set_ylabel(ppl_label(y))
        axes.axhline(0, color=GREY, lw=1, zorder=1)

        shown = shown.assign(on_front=on_front(shown))
        styles = policy_styles(shown["policy"])
        steps = draw_front(axes, shown[shown["on_front"]], x, y)
        join_layouts(axes, shown)
        for arm in shown.to_dict("records"):
            draw_arm(axes, arm, styles[arm["policy"]])
        # The line through an arm's layouts tells which arm an unlabelled one of them is.
        plain_layout = shown["layout"].isin(PLAIN_LAYOUTS)
        labelled = shown[shown["within"] & (plain_layout | shown["on_front"])]
        homeless = place_labels(
            axes,
            [arm_label(arm, styles) for arm in by_importance(labelled).to_dict("records")],
            points=shown[["tpot_ms", "ppl_delta_pct"]].to_numpy(np.float64),
            lines=np.vstack([steps, intervals(labelled), [[x.low, 0, x.high, 0]]]),
        )
        if homeless:
            notes.append(f"No room for the labels of {len(homeless)} arms; the tables list all.")
        pareto_legends(figure, shown, styles, shared)
        write_notes(figure, notes)
    return figure


def _untimed_note(count: int) -> list[str]:
    return [f"{count} arm{'s' * (count > 1)} without a time: only their quality is measured."][
        : count > 0
    ]
