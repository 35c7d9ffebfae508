"""Perplexity against the budget, a line per policy."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kvpareto.report.marks import parts_of
from kvpareto.report.notes import empty_figure, write_notes
from kvpareto.report.panels import dodge, draw_points
from kvpareto.report.rows import check_rows, drawable, missing_note
from kvpareto.report.scale import Scale, plain, ppl_scale, signed, two_digits
from kvpareto.report.style import GREY, PolicyStyle, policy_styles, theme

_TRAINED: dict[str, Any] = {"color": "black", "ls": (0, (5, 2)), "lw": 1.3}


def ppl_against_budget(eviction: pd.DataFrame, *, trained_length: int, title: str) -> Figure:
    """Perplexity, and its change against strict streaming, against the budget.

    A line is the one setting of a policy that was run at the most budgets: of several, the one with
    the shortest id, so the shortest period. Arms that keep the same entries as a simpler one, and
    policies with a single budget, make no line. Recompute
    is scored on fewer tokens than the others, so it has no perplexity here, but a change against
    strict streaming on those tokens.

    Args:
        eviction: rows of the `eviction` table of one model and text. Columns used: `policy`,
            `setting`, `cap`, `cap_on` (only arms whose peak is capped are drawn), `alias_of`,
            `ppl`, `ppl_delta_strict_pct`, `ppl_delta_strict_lo`, `ppl_delta_strict_hi`, `status`.
        trained_length: the model's trained length in tokens, drawn as a vertical line.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    check_rows(
        eviction,
        "policy setting cap cap_on alias_of ppl ppl_delta_strict_pct status",
        "ppl_delta_strict",
    )
    own = eviction[(eviction["cap_on"] == "peak") & (eviction["alias_of"] == "")]
    rows = _longest_lines(own)
    shown, missing = drawable(rows, ["ppl", "ppl_delta_strict_pct"])
    names = [
        f"{name} at cap {cap}" for name, cap in zip(missing["policy"], missing["cap"], strict=True)
    ]
    notes = missing_note(names, missing)
    with theme():
        figure = Figure(figsize=(12.8, 6.4))
        left, right = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.062, right=0.765, top=0.885, bottom=0.125, wspace=0.24)
        figure.suptitle(title, x=0.012, y=0.965, ha="left", weight="bold", fontsize=13)
        left.set_title("perplexity", loc="left")
        right.set_title("change against strict streaming", loc="left")
        if (shown["policy"] == "recompute").all():
            right.remove()
            return empty_figure(figure, left, notes)
        looks = {name: _look(style) for name, style in policy_styles(shown["policy"]).items()}
        handles = []
        for place, (policy, look) in enumerate(looks.items()):
            line = shown[shown["policy"] == policy].sort_values("cap")
            x = line["cap"].astype(float)
            if policy != "recompute":
                left.plot(x, line["ppl"], **look)
            draw_points(
                right, x, line, "ppl_delta_strict_pct", look, dodge(right, place, len(looks))
            )
            name = f"{policy.replace('_', ' ')} · {line['line'].iloc[0]}".strip(" ·")
            handles.append(Line2D([], [], label=textwrap.fill(name, 32), **look))
        handles.append(Line2D([], [], label=f"trained length {trained_length:,}", **_TRAINED))

        ppl = shown.loc[shown["policy"] != "recompute", "ppl"]
        Scale.around(ppl, ppl, ppl, logarithmic=True).apply(left, "y", plain)
        left.set_ylabel("perplexity (logarithmic)")
        change = ppl_scale(shown, "ppl_delta_strict")
        change.apply(right, "y", signed)
        right.axhline(0, color=GREY, lw=1, zorder=1)
        squeezed = f"; squeezed above {signed(two_digits(change.limit))}" if change.squeezed else ""
        right.set_ylabel(f"perplexity against strict streaming (%{squeezed})")
        caps = sorted(shown["cap"].astype(int).unique())
        for axes in (left, right):
            _budget_axis(axes, caps, trained_length)
        figure.legend(
            handles=handles,
            title="policy · setting",
            loc="upper left",
            bbox_to_anchor=(0.77, 0.9),
            frameon=False,
            alignment="left",
            fontsize=10,
        )
        write_notes(figure, notes)
    return figure


def _longest_lines(peak: pd.DataFrame) -> pd.DataFrame:
    """Of each policy the setting with the most budgets, if it has two; `line` names it."""
    parts = [[part for part in parts_of(own) if part != "peak"] for own in peak["setting"]]
    peak = peak.assign(line=[" ".join(own) for own in parts])
    counts = peak.groupby(["policy", "line"])["cap"].nunique().reset_index(name="budgets")
    counts = counts[counts["budgets"] > 1].assign(size=counts["line"].map(len))
    counts = counts.sort_values(["budgets", "size", "line"], ascending=[False, True, True])
    return peak.merge(counts.drop_duplicates("policy")[["policy", "line"]], on=["policy", "line"])


def _look(style: PolicyStyle) -> dict[str, Any]:
    return {
        "color": style.color,
        "marker": style.marker,
        "mfc": "white" if style.hollow else style.color,
        "ls": (0, (4, 1.5)) if style.hollow else "-",
        "ms": style.size,
        "lw": 1.5,
    }


def _budget_axis(axes: Axes, caps: list[int], trained_length: int) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(min([*caps, trained_length]) / 1.25, max([*caps, trained_length]) * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(caps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("budget: peak attended length (keys, log.)")
    axes.axvline(trained_length, **_TRAINED, zorder=2)
