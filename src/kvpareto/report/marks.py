"""What a Pareto figure draws for each arm: marker, intervals, label, front, legend."""

from __future__ import annotations

import re
import textwrap
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
from kvpareto.report.style import CONTROLS, GREY, PLAIN_LAYOUTS, PolicyStyle, mix, reach


def parts_of(setting: str) -> list[str]:
    """`peak`, `S4`, `R64` of `cap512-peak-S4-R64-1f3a9c2e`; the figure shows the cap otherwise."""
    hidden = r"cap\d+|postprune|none|[0-9a-f]{8}"
    return [part for part in setting.split("-") if not re.fullmatch(hidden, part)]


def shared_parts(arms: pd.DataFrame) -> dict[str, list[str]]:
    """Per policy, the parts that all its settings have: said once, in the legend."""
    shared = {}
    for policy, settings in arms.groupby("policy")["setting"]:
        split = [parts_of(setting) for setting in settings]
        shared[str(policy)] = [part for part in split[0] if all(part in parts for parts in split)]
    return shared


def short_settings(arms: pd.DataFrame, shared: dict[str, list[str]]) -> list[str]:
    """What sets each arm apart from the others of its policy, for example `R64`."""
    return [
        " ".join(part for part in parts_of(setting) if part not in shared[policy])
        for policy, setting in zip(arms["policy"], arms["setting"], strict=True)
    ]


def on_front(shown: pd.DataFrame) -> NDArray[np.bool_]:
    """The arms within the budget that no other such arm beats on both axes."""
    return front(shown["tpot_ms"].where(shown["within"]), shown["ppl_delta_pct"])


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
    """The intervals and the marker of one arm: pale if it is over the budget."""
    color = style.color if arm["within"] else mix(style.color, "white", 0.68)
    x, y = arm["tpot_ms"], arm["ppl_delta_pct"]
    axes.errorbar(
        [x],
        [y],
        xerr=reach([x], [arm["tpot_ms_lo"]], [arm["tpot_ms_hi"]]),
        yerr=reach([y], [arm["ppl_delta_lo"]], [arm["ppl_delta_hi"]]),
        fmt="none",
        ecolor=color,
        elinewidth=1.0,
        alpha=0.8 if arm["on_front"] else 0.35,
        zorder=3 if arm["within"] else 2,
    )
    rim = "black" if arm["on_front"] else color if style.hollow else "white"
    axes.plot(
        [x],
        [y],
        ls="none",
        marker=style.marker,
        ms=style.size * (1.2 if arm["on_front"] else 1 if arm["within"] else 0.85),
        mfc="white" if style.hollow else color,
        mec=rim,
        mew=1.8 if style.hollow or arm["on_front"] else 0.7,
        zorder=5 if arm["on_front"] else 4 if arm["within"] else 2.5,
    )


def join_layouts(axes: Axes, shown: pd.DataFrame) -> None:
    """A thin line through the points of one arm in several cache layouts."""
    for _, same in shown.groupby(["policy", "setting"]):
        if len(same) > 1:
            same = same.sort_values("tpot_ms")
            color = GREY if same["within"].all() else mix(GREY, "white", 0.68)
            axes.plot(same["tpot_ms"], same["ppl_delta_pct"], color=color, lw=1.0, zorder=2)


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
    """Short setting, and the cache layout if it is another than the plain one.

    With the policy's name for a control, and where its settings do not tell arms apart.
    """
    policy = arm["policy"].replace("_", " ")
    named = arm["policy"] in CONTROLS or arm["name"] in ("", "peak")
    text = f"{policy} {arm['name']}".strip() if named else arm["name"]
    if arm["layout"] not in PLAIN_LAYOUTS:
        text += f" · {arm['layout'].replace('_', ' ')}"
    return Label(
        arm["tpot_ms"],
        arm["ppl_delta_pct"],
        text,
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

    def dot(label: str, marker: Any, fill: str, edge: str, width: float, size: float = 9) -> Line2D:
        look = {"marker": marker, "ms": size, "mfc": fill, "mec": edge, "mew": width}
        return Line2D([], [], ls="none", label=label, **look)

    policies = [
        dot(
            textwrap.fill(
                " · ".join(filter(None, [policy.replace("_", " "), " ".join(shared[policy])])), 36
            ),
            style.marker,
            "white" if style.hollow else style.color,
            style.color,
            1.8 if style.hollow else 1.0,
            style.size,
        )
        for policy, style in styles.items()
    ]
    reading = [
        Line2D([], [], color="#2b2b2b", lw=1.5, alpha=0.75, label="front of the arms in budget"),
        dot("black rim: on the front", "s", "#b4b4b4", "black", 1.8),
        dot("full colour: within the budget", "s", GREY, GREY, 1),
    ]
    if not shown["within"].all():
        reading.append(dot("pale: over the budget", "s", "#d5d5d5", "#d5d5d5", 1))
    reading.append(dot("hollow: control", "s", "white", GREY, 1.8))
    if not shown["layout"].isin(PLAIN_LAYOUTS).all():
        reading.append(Line2D([], [], color=GREY, lw=1, label="one arm, several cache layouts"))
    look: dict[str, Any] = {"frameon": False, "alignment": "left", "handletextpad": 0.5}
    look |= {"fontsize": 10, "labelspacing": 0.35}
    for title, handles, look["loc"], y in (
        ("policy · setting in common", policies, "upper left", 0.96),
        ("how to read", reading, "lower left", 0.055),
    ):
        figure.legend(handles=handles, title=title, bbox_to_anchor=(0.745, y), **look)
