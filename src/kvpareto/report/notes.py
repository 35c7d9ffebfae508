"""What stands below and instead of a plot."""

from __future__ import annotations

import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kvpareto.report.style import GREY


def write_notes(figure: Figure, notes: list[str]) -> None:
    """Sentences along the lower edge."""
    text = "\n".join(textwrap.wrap(" ".join(notes), 165))
    figure.text(0.012, 0.012, text, fontsize=10, color=GREY, va="bottom")


def empty_figure(figure: Figure, axes: Axes, notes: list[str]) -> Figure:
    """The figure of rows among which no arm has a point."""
    axes.text(0.5, 0.5, "no arm has a result", transform=axes.transAxes, ha="center", color=GREY)
    axes.set_xticks([])
    axes.set_yticks([])
    write_notes(figure, notes)
    return figure
