"""Figures of self-attention: what they draw, what they leave out and say so, equal bytes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tests.frames import words

from kvpareto.claims.bootstrap import Interval
from kvpareto.measure.attention_bench import ATTENTION_COLUMNS, missing, row
from kvpareto.report.figures.attention_growth import SOURCE_FORWARD_MS, time_against_length
from kvpareto.report.figures.attention_split import forward_and_backward
from kvpareto.report.style import save_svg

TITLE = "self-attention"
LENGTHS = (8, 32, 128, 512)


def attention_table() -> pd.DataFrame:
    """Two dtypes, a backend without gradients, one without bfloat16, and a time without bounds."""
    rows = []
    for dtype, slower in (("float32", 1.0), ("bfloat16", 2.0)):
        for backend in ("reference", "flex"):
            for length in LENGTHS:
                ms = slower * (1 + length / 50)
                bounds = (0.9 * ms, 1.1 * ms) if length < 512 else (np.nan, np.nan)
                rows.append(row(backend, length, dtype, "forward_ms", Interval(ms, *bounds), "ms"))
            said = Interval(1.9, 1.8, 2.0)
            rows.append(row(backend, 512, dtype, "growth_exponent", said, "", "from 32 tokens on"))
        for length in (32, 512):
            for measure, value in (("training_forward_ms", 2), ("backward_ms", 5)):
                rows.append(row("reference", length, dtype, measure, Interval(value, 1, 6), "ms"))
            ratio = Interval(2.5, 2.4, 2.6)
            rows.append(row("reference", length, dtype, "backward_ratio", ratio, "ratio"))
            rows.append(missing("flex", length, dtype, "backward_ms", "no gradients"))
    rows.append(missing("sdpa", 8, "bfloat16", "forward_ms", "no such unit"))
    return pd.DataFrame(rows, columns=ATTENTION_COLUMNS)


FIGURES = {"growth": time_against_length, "split": forward_and_backward}


@pytest.mark.parametrize("name", FIGURES)
def test_two_builds_are_one_sequence_of_bytes_and_nothing_is_cut_off(name, tmp_path):
    figures = [FIGURES[name](attention_table(), title=TITLE) for _ in range(2)]
    for place, figure in enumerate(figures):
        save_svg(figure, tmp_path / f"{place}.svg")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
    assert TITLE in words(figures[0])
    box = figures[0].get_tightbbox(FigureCanvasAgg(figures[0]).get_renderer())
    width, height = figures[0].get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize("name", FIGURES)
def test_a_study_without_a_single_result_still_gives_a_figure(name):
    table = attention_table().assign(status="unavailable")
    assert "no arm has a result" in words(FIGURES[name](table, title=TITLE))


def test_growth_has_a_panel_per_dtype_its_exponents_and_the_sources_figures():
    figure = time_against_length(attention_table(), title=TITLE)
    assert [axes.get_title("left") for axes in figure.axes] == ["float32", "bfloat16"]
    said = words(figure)
    assert "reference  1.90 [1.80, 2.00]" in said
    assert "growth exponent, from 32 tokens on" in said
    assert "source, on its machine  0.95 over these five" in said
    assert "Not shown: sdpa in bfloat16 (unavailable)" in said
    drawn = [tuple(line.get_ydata()) for line in figure.axes[0].lines]
    assert tuple(SOURCE_FORWARD_MS.values()) in drawn


def test_split_has_a_panel_per_length_its_ratios_and_the_sources():
    said = words(forward_and_backward(attention_table(), title=TITLE))
    assert "32 tokens" in said
    assert "512 tokens" in said
    assert said.count("2.50x [2.40, 2.60]") == 4
    assert said.count("5.84x") == 1
    assert "flex, float32 (unavailable)" in said
    without = attention_table()
    without = without[without["length"] != 32]
    assert "5.84x" not in words(forward_and_backward(without, title=TITLE))
