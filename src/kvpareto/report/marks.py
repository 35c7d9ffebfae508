"""What a Pareto figure draws for each arm: marker, intervals, label, front, legend."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from kvpareto.claims.pareto import front
from kvpareto.report.labels import Label
from kvpareto.report.scale import Scale
from kvpareto.report.style import CONTROLS, GREY, PolicyStyle, mix, reach

WITHIN_BUDGET = ("post_prune", "peak")
"""The values of cap_on that bound the cache."""


def _parts(setting: str) -> list[str]:
    """`S4`, `R64` of `cap512-peak-S4-R64-1f3a9c2e`; the figure shows cap and cap_on otherwise."""
    hidden = r"cap\d+|postprune|peak|none|[0-9a-f]{8}"
    return [part for part in setting.split("-") if not re.fullmatch(hidden, part)]


def shared_parts(arms: pd.DataFrame) -> dict[str, list[str]]:
    """Per policy, the parts that all its settings have: said once, in the legend."""
    shared = {}
    for policy, settings in arms.groupby("policy")["setting"]:
        split = [_parts(setting) for setting in settings]
        shared[str(policy)] = [part for part in split[0] if all(part in parts for parts in split)]
    return shared


def short_settings(arms: pd.DataFrame, shared: dict[str, list[str]]) -> list[str]:
    """What sets each arm apart from the others of its policy, for example `R64`."""
    return [
        " ".join(part for part in _parts(setting) if part not in shared[policy])
        for policy, setting in zip(arms["policy"], arms["setting"], strict=True)
    ]


def on_front(shown: pd.DataFrame) -> NDArray[np.bool_]:
    within = shown["cap_on"].isin(WITHIN_BUDGET) & (shown["policy"] != "full")
    return front(shown["tpot_ms"].where(within), shown["ppl_delta_pct"])


def draw_front(axes: Axes, best: pd.DataFrame, x: Scale, y: Scale) -> NDArray[np.float64]:
    """Draw the steps through the front; returns them as lines [lines, 4]."""
    if best.empty:
        return np.empty((0, 4))
    best = best.sort_values(["tpot_ms", "ppl_delta_pct"])
    across = np.array([best["tpot_ms"].iloc[0], *best["tpot_ms"], x.high])
    along = np.array([y.high, *best["ppl_delta_pct"], best["ppl_delta_pct"].iloc[-1]])
    axes.plot(across, along, drawstyle="steps-post", color="#2b2b2b", lw=1.5, alpha=0.75, zorder=2)
    level = np.column_stack([across[:-1], along[:-1], across[1:], along[:-1]])
    upright = np.column_stack([across[1:], along[:-1], across[1:], along[1:]])
    return np.vstack([level, upright])


def draw_arm(axes: Axes, arm: dict[Any, Any], style: PolicyStyle) -> None:
    """The intervals and the marker of one arm."""
    strong = arm["on_front"] or style.hollow
    x, y = arm["tpot_ms"], arm["ppl_delta_pct"]
    axes.errorbar(
        [x],
        [y],
        xerr=reach([x], [arm["tpot_ms_lo"]], [arm["tpot_ms_hi"]]),
        yerr=reach([y], [arm["ppl_delta_lo"]], [arm["ppl_delta_hi"]]),
        fmt="none",
        ecolor=style.color,
        elinewidth=1.1,
        alpha=0.75 if strong else 0.4,
        zorder=3,
    )
    if style.hollow:
        fill, edge, width = "white", style.color, 1.8
    elif arm["on_front"]:
        fill, edge, width = style.color, style.color, 1.0
    else:
        fill, edge, width = mix(style.color, "white", 0.62), mix(style.color, "white", 0.25), 1.0
    if arm["cap_on"] == "peak" and not style.hollow:
        edge, width = "black", 1.5
    axes.plot(
        [x],
        [y],
        ls="none",
        marker=style.marker,
        ms=9.5 if strong else 8,
        mfc=fill,
        mec=edge,
        mew=width,
        zorder=5 if arm["on_front"] else 4,
    )


def intervals(shown: pd.DataFrame) -> NDArray[np.float64]:
    """The interval lines of all arms [2 x arms, 4]."""
    x, y = shown["tpot_ms"], shown["ppl_delta_pct"]
    level = [shown["tpot_ms_lo"].fillna(x), y, shown["tpot_ms_hi"].fillna(x), y]
    upright = [x, shown["ppl_delta_lo"].fillna(y), x, shown["ppl_delta_hi"].fillna(y)]
    return np.vstack([np.column_stack(level), np.column_stack(upright)]).astype(np.float64)


def by_importance(shown: pd.DataFrame) -> pd.DataFrame:
    """Front, controls, then the others by perplexity: the order in which labels find places."""
    control = shown["policy"].isin(CONTROLS)
    return shown.assign(control=control).sort_values(
        ["on_front", "control", "ppl_delta_pct"], ascending=[False, False, True], kind="stable"
    )


def arm_label(arm: dict[Any, Any], styles: dict[str, PolicyStyle]) -> Label:
    """Short setting; the policy's name for a control and for the only arm of a policy."""
    policy = arm["policy"].replace("_", " ")
    text = f"{policy} {arm['name']}".strip() if arm["policy"] in CONTROLS else arm["name"] or policy
    return Label(
        arm["tpot_ms"],
        arm["ppl_delta_pct"],
        text if arm["cap_on"] in WITHIN_BUDGET else f"{text}*",
        styles[arm["policy"]].ink,
        "bold" if arm["on_front"] else "normal",
    )


def pareto_legends(
    figure: Figure,
    shown: pd.DataFrame,
    styles: dict[str, PolicyStyle],
    shared: dict[str, list[str]],
) -> None:
    """To the right: which policy a marker is, and how to read its fill and rim."""

    def dot(label: str, marker: Any, fill: str, edge: str, width: float) -> Line2D:
        look = {"marker": marker, "ms": 9, "mfc": fill, "mec": edge, "mew": width}
        return Line2D([], [], ls="none", label=label, **look)

    policies = [
        dot(
            " · ".join(filter(None, [policy.replace("_", " "), " ".join(shared[policy])])),
            style.marker,
            "white" if style.hollow else style.color,
            style.color,
            1.8 if style.hollow else 1.0,
        )
        for policy, style in styles.items()
    ]
    reading = [
        Line2D([], [], color="#2b2b2b", lw=1.5, alpha=0.75, label="front of the arms in budget"),
        dot("full colour: on the front", "s", GREY, GREY, 1),
        dot("pale: dominated", "s", "#dcdcdc", "#a8a8a8", 1),
        dot("hollow: control", "s", "white", GREY, 1.8),
    ]
    if ((shown["cap_on"] == "peak") & ~shown["policy"].isin(CONTROLS)).any():
        reading.append(dot("black rim: peak length capped", "s", "#c4c4c4", "black", 1.5))
    if not shown["cap_on"].isin(WITHIN_BUDGET).all():
        reading.append(dot("*  over budget (no cap)", "None", "white", "white", 0))
    look: dict[str, Any] = {"frameon": False, "alignment": "left", "handletextpad": 0.5}
    for title, handles, look["loc"], y in (
        ("policy · setting in common", policies, "upper left", 0.95),
        ("how to read", reading, "lower left", 0.12),
    ):
        figure.legend(handles=handles, title=title, bbox_to_anchor=(0.75, y), **look)
