"""The report's figures: each takes rows of the leaf tables and returns a Matplotlib figure.

All of them name the arms that have no point below the plot: a failure is a result too. Nothing
here goes through pyplot, so no figure outlives its use.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from kvpareto.report.labels import place_labels
from kvpareto.report.marks import (
    arm_label,
    by_importance,
    draw_arm,
    draw_front,
    intervals,
    on_front,
    pareto_legends,
    shared_parts,
    short_settings,
)
from kvpareto.report.panels import (
    BUDGETS,
    Line,
    bottom_legend,
    dodge,
    draw_points,
    finish_panels,
    line_looks,
    line_name,
    mark_trained_length,
    panels_per_cap,
)
from kvpareto.report.scale import Scale, plain, ppl_label, ppl_scale, signed, two_digits
from kvpareto.report.style import CONTROLS, GREY, policy_styles, theme


def pareto_figure(arms: pd.DataFrame, *, title: str) -> Figure:
    """Time per token against perplexity change, for one model, text and cap.

    The front goes through the arms that no other arm within the budget dominates. Arms without a
    cap (`full`, `cap_on: none`) are shown, and keep nobody off the front.

    Args:
        arms: one row per arm, the `eviction` and `timing` tables merged on model, text, policy
            and setting. Columns used: `policy`, `setting` (the id, for labels), `cap_on`,
            `tpot_ms`, `tpot_ms_lo`, `tpot_ms_hi` (ms per token; the bounds are
            `tpot_ratio_lo` and `_hi` times the yardstick's time), `ppl_delta_pct`,
            `ppl_delta_lo`, `ppl_delta_hi` (percent against recompute), `status` ("ok" only if
            quality and timing both are). Bounds may be NaN.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    _check(arms, "policy setting cap_on tpot_ms ppl_delta_pct status", "tpot_ms ppl_delta")
    shared = shared_parts(arms)
    arms = arms.assign(name=short_settings(arms, shared))
    shown, missing = _split(arms, ["tpot_ms", "ppl_delta_pct"])
    notes = _missing_note(missing["policy"] + " " + missing["name"], missing)
    with theme():
        figure = Figure(figsize=(12.8, 7.4))
        axes = figure.add_axes((0.095, 0.135, 0.65, 0.80))
        axes.set_title(title, loc="left", weight="bold")
        if shown.empty:
            return _empty(figure, axes, notes)
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
        for arm in shown.to_dict("records"):
            draw_arm(axes, arm, styles[arm["policy"]])
        homeless = place_labels(
            axes,
            [arm_label(arm, styles) for arm in by_importance(shown).to_dict("records")],
            points=shown[["tpot_ms", "ppl_delta_pct"]].to_numpy(np.float64),
            lines=np.vstack([steps, intervals(shown), [[x.low, 0, x.high, 0]]]),
        )
        if homeless:
            notes.append(f"No room for the labels of {len(homeless)} arms; the tables list all.")
        pareto_legends(figure, shown, styles, shared)
        _write_notes(figure, notes)
    return figure


def ppl_against_period(eviction: pd.DataFrame, *, title: str) -> Figure:
    """Perplexity change against the prune period, for one model and text, a panel per cap.

    Args:
        eviction: rows of the `eviction` table. Columns used: `policy`, `cap`, `cap_on`,
            `ppl_delta_pct`, `ppl_delta_lo`, `ppl_delta_hi`, `status`, and, joined from
            setting.json: `period` (R, tokens), `sinks` (S), `trigger` ("overflow" or "clock").
            Rows of `lazy` make the lines, one per trigger, cap_on and sinks; the `start_recent`
            row of the same cap, cap_on and sinks is the R = 1 end of each. Other policies are
            left out.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, the rows are of several models or texts, or two arms fall
            on one place of a line.
    """
    _check(eviction, "policy cap cap_on period sinks trigger ppl_delta_pct status", "ppl_delta")
    rows = _lazy_lines(eviction)
    shown, missing = _split(rows, ["ppl_delta_pct", "period"])
    notes = _missing_note(_period_names(missing), missing)
    keys: list[Line] = sorted(
        shown[["sinks", "cap_on", "trigger"]].drop_duplicates().itertuples(index=False, name=None),
        key=lambda key: (key[0], list(BUDGETS).index(key[1]), key[2] != "overflow"),
    )
    with theme():
        looks = line_looks(keys)
        handles = [Line2D([], [], label=line_name(key), **looks[key]) for key in keys]
        legend_rows = math.ceil(len(keys) / 3)
        columns = math.ceil(len(keys) / legend_rows) if keys else 1
        figure, panels = panels_per_cap(shown["cap"], title, legend_rows)
        if shown.empty:
            return _empty(figure, panels[0][1], notes)
        scale = ppl_scale(shown)
        periods = sorted(shown["period"].unique())
        for cap, axes in panels:
            panel = shown[shown["cap"] == cap].set_index(["sinks", "cap_on", "trigger"])
            for place, key in enumerate(keys):
                if key not in panel.index:
                    continue
                line = panel.loc[[key]].sort_values("period")
                if line["period"].duplicated().any():
                    raise ValueError(
                        f"two arms of one period at cap {cap:g}, {line_name(key)}: a line is one "
                        "policy, lazy, whose settings differ in nothing but the period"
                    )
                draw_points(axes, line["period"], line, looks[key], dodge(axes, place, len(keys)))
            axes.set_xscale("log", base=2)
            axes.set_xlim(min(periods) / 1.35, max(periods) * 1.35)
            axes.xaxis.set_major_locator(FixedLocator(periods))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("prune period R (tokens, logarithmic)")
        finish_panels(figure, panels, scale)
        bottom_legend(figure, handles, "trigger, budget, sinks", columns, handlelength=2.6)
        _write_notes(figure, notes)
    return figure


def ppl_against_attended(eviction: pd.DataFrame, *, trained_length: int, title: str) -> Figure:
    """Perplexity change against the longest attended length, for one model and text.

    Args:
        eviction: rows of the `eviction` table. Columns used: `policy`, `cap`, `cap_on`,
            `peak_attended_len` (keys), `ppl_delta_pct`, `ppl_delta_lo`, `ppl_delta_hi`, `status`,
            and, joined from setting.json, `period` (R, tokens). `start_recent` counts as R = 1;
            rows without a period and the controls are left out.
        trained_length: the model's trained length in tokens, drawn as a vertical line.
        title: written above the plot.

    Raises:
        ValueError: a column is missing, or the rows are of several models or texts.
    """
    _check(eviction, "policy cap cap_on period peak_attended_len ppl_delta_pct status", "ppl_delta")
    rows = _with_strict_period(eviction)
    rows = rows[rows["period"].notna() & ~rows["policy"].isin(CONTROLS)]
    shown, missing = _split(rows, ["ppl_delta_pct", "peak_attended_len"])
    notes = _missing_note(_period_names(missing), missing)
    periods = sorted(shown["period"].unique())
    budgets = [budget for budget in BUDGETS if budget in set(shown["cap_on"])]
    with theme():
        ramp = sns.color_palette("viridis", len(periods) + 1).as_hex()
        colors = dict(zip(periods, ramp, strict=False))
        markers = {"post_prune": "o", "peak": "s", "none": "X"}
        handles = [
            Line2D([], [], ls="none", marker="o", ms=9, color=colors[period], label=f"R{period:g}")
            for period in periods
        ] + [
            Line2D([], [], ls="none", ms=8, color=GREY, marker=markers[cap_on], label=meaning)
            for cap_on, meaning in BUDGETS.items()
            if cap_on in budgets
        ]
        legend_rows = math.ceil(len(handles) / 9)
        columns = math.ceil(len(handles) / legend_rows) if handles else 1
        figure, panels = panels_per_cap(shown["cap"], title, legend_rows)
        if shown.empty:
            return _empty(figure, panels[0][1], notes)
        for cap, axes in panels:
            panel = shown[shown["cap"] == cap]
            for (period, cap_on), points in panel.groupby(["period", "cap_on"]):
                look = {
                    "color": colors[period],
                    "marker": markers[str(cap_on)],
                    "mec": "white",
                    "ls": "none",
                    "ms": 8,
                }
                draw_points(axes, points["peak_attended_len"], points, look)
            mark_trained_length(axes, panel["peak_attended_len"], trained_length)
            axes.set_xlabel("peak attended length (keys)")
        finish_panels(figure, panels, ppl_scale(shown))
        bottom_legend(figure, handles, "prune period (tokens), budget", columns, handlelength=1.0)
        _write_notes(figure, notes)
    return figure


# What all figures share


def _check(frame: pd.DataFrame, columns: str, intervals: str) -> None:
    """Refuse rows that lack a column, or that are of more than one model and text."""
    bounds = [f"{name}_{end}" for name in intervals.split() for end in ("lo", "hi")]
    lacking = [column for column in [*columns.split(), *bounds] if column not in frame.columns]
    if lacking:
        raise ValueError(f"the frame lacks the columns {', '.join(lacking)}")
    for column in {"model", "text"} & set(frame.columns):
        if frame[column].nunique() > 1:
            raise ValueError(
                f"the figure is of one {column}, and the rows are of "
                f"{', '.join(sorted(frame[column].unique()))}: select one"
            )


def _split(frame: pd.DataFrame, needed: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows that can be drawn, and the others."""
    known = np.isfinite(frame[needed].to_numpy(np.float64, na_value=np.nan)).all(axis=1)
    drawn = (frame["status"] == "ok") & known
    return frame[drawn], frame[~drawn]


def _missing_note(names: Iterable[str], missing: pd.DataFrame) -> list[str]:
    """One sentence about the arms without a point, or nothing."""
    said = [
        f"{name.replace('_', ' ').strip()} ({'no value' if status == 'ok' else status})"
        for name, status in zip(names, missing["status"], strict=True)
    ]
    said = list(dict.fromkeys(said))
    more = f" and {len(said) - 6} more" if len(said) > 6 else ""
    return [f"Not shown: {', '.join(said[:6])}{more}."] if said else []


def _write_notes(figure: Figure, notes: list[str]) -> None:
    text = "\n".join(textwrap.wrap(" ".join(notes), 165))
    figure.text(0.012, 0.012, text, fontsize=10, color=GREY, va="bottom")


def _empty(figure: Figure, axes: Axes, notes: list[str]) -> Figure:
    """The figure of rows among which no arm has a point."""
    axes.text(0.5, 0.5, "no arm has a result", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    _write_notes(figure, notes)
    return figure


def _period_names(rows: pd.DataFrame) -> list[str]:
    return [
        f"{policy} R{period:g} at cap {cap:g}"
        for policy, period, cap in zip(rows["policy"], rows["period"], rows["cap"], strict=True)
    ]


def _with_strict_period(eviction: pd.DataFrame) -> pd.DataFrame:
    """Strict streaming prunes after every token: R = 1."""
    strict = eviction["policy"] == "start_recent"
    return eviction.assign(period=eviction["period"].astype(np.float64).mask(strict, 1.0))


def _lazy_lines(eviction: pd.DataFrame) -> pd.DataFrame:
    """The lazy arms and, at the R = 1 end of each line that has none, the strict arm."""
    rows = _with_strict_period(eviction)
    lazy = rows[rows["policy"] == "lazy"]
    places = ["cap", "cap_on", "sinks", "trigger"]
    first = lazy.groupby(places, as_index=False)["period"].min()
    open_ends = first.loc[first["period"] > 1, places]
    strict = rows[rows["policy"] == "start_recent"].drop(columns="trigger")
    return pd.concat([lazy, strict.merge(open_ends, on=places[:3])], ignore_index=True)
