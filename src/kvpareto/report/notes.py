"""What stands below and instead of a plot."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvpareto.report.style import GREY


def write_notes(figure: Figure, notes: list[str]) -> None:
    """Sentences along the lower edge."""
    text = "\n".join(_lines(notes))
    figure.text(0.012, 0.012, text, fontsize=10, color=GREY, va="bottom")


def notes_height(notes: list[str]) -> float:
    """Inches that the sentences take: for a layout that leaves room for many of them."""
    return 0.17 * len(_lines(notes))


def _lines(notes: list[str]) -> list[str]:
    return textwrap.wrap(" ".join(notes), 165)


def empty_figure(figure: Figure, axes: Axes, notes: list[str]) -> Figure:
    """The figure of rows among which no arm has a point."""
    axes.text(0.5, 0.5, "no arm has a result", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    write_notes(figure, notes)
    return figure
