"""How every figure looks: one style per policy and strategy, one theme, one spelling of SVG."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kvpareto.records import atomic_path

Marker = str | tuple[int, int, int]

CONTROLS = ("recompute", "full", "random")
"""Arms that say how good or bad an arm can be, not methods one would pick: drawn hollow."""

PLAIN_LAYOUTS = ("compact", "overwrite", "none")
"""Cache layouts that a figure does not name: a policy has one of them. `none` is recompute's."""

GREY = "#5b5b5b"


@dataclass(frozen=True)
class PolicyStyle:
    """Colour and marker of a policy or strategy, the same in every figure of a report."""

    color: str
    marker: Marker
    hollow: bool = False

    @property
    def size(self) -> float:
        """Marker size in points; stars of few rays look smaller than they are."""
        return 8.0 if isinstance(self.marker, str) else 11.5

    @property
    def ink(self) -> str:
        """The colour, dark enough for small text on white."""
        return mix(self.color, "black", 0.35)


def mix(color: str, other: str, share: float) -> str:
    """`color` with a share of `other` in it."""
    red, green, blue = (1 - share) * np.array(to_rgb(color)) + share * np.array(to_rgb(other))
    return to_hex((red, green, blue))


_PALETTE: list[str] = sns.color_palette("colorblind").as_hex()
_BLUE, _ORANGE, _GREEN, _RED, _PINK, _BROWN, _SKY = (_PALETTE[i] for i in (0, 1, 2, 3, 4, 5, 9))
_STYLES: dict[str, PolicyStyle] = {
    "recompute": PolicyStyle("#000000", "P", hollow=True),
    "full": PolicyStyle(GREY, "^", hollow=True),
    "random": PolicyStyle(GREY, "o", hollow=True),
    "start_recent": PolicyStyle(_BLUE, "o"),
    "lazy": PolicyStyle(_RED, "s"),
    "recent": PolicyStyle(_ORANGE, "v"),
    "slack": PolicyStyle(_GREEN, "D"),
    "max_drop": PolicyStyle(_PINK, "^"),
    "overlap": PolicyStyle(_SKY, "h"),
    "refresh": PolicyStyle(_BROWN, "P"),
    "bridge": PolicyStyle(_BLUE, "X"),
    "adaptive_slack": PolicyStyle(_ORANGE, "p"),
    "adaptive_entropy": PolicyStyle(_GREEN, "<"),
    "h2o": PolicyStyle(_PINK, "*"),
    "scissorhands": PolicyStyle(_BROWN, "d"),
    "snapkv": PolicyStyle(_SKY, ">"),
    "tova": PolicyStyle(_GREEN, "8"),
    "pyramidkv": PolicyStyle(_BLUE, (4, 1, 0)),
    "knorm": PolicyStyle(_RED, (4, 1, 45)),
    "keydiff": PolicyStyle(_ORANGE, (6, 1, 0)),
}
_STRATEGIES: dict[str, PolicyStyle] = {
    "none": PolicyStyle("#000000", "P", hollow=True),
    "full": PolicyStyle(GREY, "^", hollow=True),
    "cat": PolicyStyle(GREY, "v", hollow=True),
    "blend": PolicyStyle(_BLUE, "o"),
    "debug": PolicyStyle(_ORANGE, "s"),
    "debug_perhead": PolicyStyle(_RED, "D"),
    "attnlink": PolicyStyle(_GREEN, "h"),
    "surprisal_chunk": PolicyStyle(_PINK, "X"),
    "tail": PolicyStyle(_BROWN, "<", hollow=True),
    "random": PolicyStyle(GREY, "o", hollow=True),
    "oracle": PolicyStyle("#000000", "*", hollow=True),
}
_BACKENDS: dict[str, PolicyStyle] = {
    "reference": PolicyStyle(_BLUE, "o"),
    "sdpa": PolicyStyle(_ORANGE, "s"),
    "flex": PolicyStyle(_GREEN, "D"),
    "flex_eager": PolicyStyle(_GREEN, "D", hollow=True),
}
_OFFSETS: dict[str, PolicyStyle] = {
    "full": PolicyStyle("#000000", "P", hollow=True),
    "concat": PolicyStyle(GREY, "v", hollow=True),
    "zero": PolicyStyle(GREY, "^", hollow=True),
    "energy_deficit": PolicyStyle(_BLUE, "o"),
    "mean_field": PolicyStyle(_ORANGE, "s"),
    "ape": PolicyStyle(_PINK, "X"),
    "decrowd": PolicyStyle(_GREEN, "D"),
    "hard_drop": PolicyStyle(_RED, "v"),
    "tiered": PolicyStyle(_BROWN, "<"),
    "drop_sink": PolicyStyle(_SKY, "h"),
}
_SPARE = [
    PolicyStyle(color, marker)
    for marker in ("v", "D", "X", "p", "*", "o", "s")
    for color in (_PINK, _BROWN, _SKY, _GREEN, _RED, _ORANGE, _BLUE)
]


def policy_styles(policies: Iterable[str]) -> dict[str, PolicyStyle]:
    """A style for each policy, in the order of the built-in table, then by name.

    A policy that the table does not know gets a spare style that no other policy here has.
    """
    return _styles(policies, _STYLES)


def strategy_styles(strategies: Iterable[str]) -> dict[str, PolicyStyle]:
    """A style for each reuse strategy, as `policy_styles` has it for policies."""
    return _styles(strategies, _STRATEGIES)


def backend_styles(backends: Iterable[str]) -> dict[str, PolicyStyle]:
    """A style for each attention backend, as `policy_styles` has it for policies."""
    return _styles(backends, _BACKENDS)


def offset_styles(offsets: Iterable[str]) -> dict[str, PolicyStyle]:
    """A style for each offset of the merge part, as `policy_styles` has it for policies."""
    return _styles(offsets, _OFFSETS)


def _styles(names: Iterable[str], table: Mapping[str, PolicyStyle]) -> dict[str, PolicyStyle]:
    names = set(names)
    spare = (style for style in _SPARE if style not in table.values())
    new = {name: next(spare) for name in sorted(names - set(table))}
    return {name: style for name, style in table.items() if name in names} | new


@contextlib.contextmanager
def theme() -> Iterator[None]:
    """White grid and readable sizes; the font is the one that Matplotlib ships."""
    with mpl.rc_context(
        {
            **sns.axes_style("whitegrid", {"grid.color": "#e6e6e6", "axes.edgecolor": "#8a8a8a"}),
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 12,
            "axes.labelsize": 12.5,
            "axes.titlesize": 13,
            "legend.fontsize": 11,
            "legend.title_fontsize": 11.5,
            "xtick.labelsize": 11.5,
            "ytick.labelsize": 11.5,
            "figure.dpi": 100,
        }
    ):
        yield


def save_svg(figure: Figure, path: str | Path) -> None:
    """Write a figure so that equal figures are equal bytes.

    Text is drawn as paths: it looks the same whatever fonts the reader has.
    """
    stable: dict[Any, Any] = {"svg.hashsalt": "kvpareto", "svg.fonttype": "path"}
    with atomic_path(path) as temporary, mpl.rc_context(stable):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def reach(centre: Any, lo: Any, hi: Any) -> NDArray[np.float64]:
    """Lengths of the intervals' two arms [2, points]; zero where a bound is NaN."""
    middle = np.asarray(centre, dtype=np.float64)
    return np.nan_to_num(np.array([middle - lo, hi - middle], dtype=np.float64)).clip(0)
