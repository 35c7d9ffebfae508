"""Figures of the decode part: what they draw, what they leave out and say so, equal bytes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from tests.decode_frames import ENGINES, age_rows, decode_rows, drift_rows, slope_rows
from tests.frames import TITLE, labels, words

from kvpareto.report.engines import family_of, runs_of, spelt
from kvpareto.report.figures.decode_age import cost_against_age
from kvpareto.report.figures.decode_bandwidth import time_against_bandwidth
from kvpareto.report.figures.decode_steps import steps_and_speedups
from kvpareto.report.figures.rotation_drift import error_against_age
from kvpareto.report.style import save_svg

RUNS = {"caps": (512, 2048), "threads": (1, 2)}
FIGURES = {
    "bandwidth": lambda: time_against_bandwidth(decode_rows(), title=TITLE),
    "bandwidth of four runs": lambda: time_against_bandwidth(decode_rows(**RUNS), title=TITLE),
    "steps": lambda: steps_and_speedups(decode_rows(), title=TITLE),
    "steps of two runs": lambda: steps_and_speedups(decode_rows(threads=(1, 2)), title=TITLE),
    "age": lambda: cost_against_age(age_rows(), slope_rows(), title=TITLE),
    "drift": lambda: error_against_age(drift_rows(), title=TITLE),
}
OF_TABLE = {"bandwidth": time_against_bandwidth, "steps": steps_and_speedups}


def said(figure):
    """All text of a figure, as if no line were broken."""
    return " ".join(words(figure).split())


def overlapping(figure):
    """Pairs of labels that cover one another."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for one in labels(figure):
        one.update_positions(renderer)
    boxes = [(one.get_text(), Text.get_window_extent(one, renderer)) for one in labels(figure)]
    return [
        (name, other)
        for place, (name, box) in enumerate(boxes)
        for other, beside in boxes[place + 1 :]
        if box.overlaps(beside)
    ]


@pytest.mark.parametrize("name", ["bandwidth", "steps", "age", "drift"])
def test_two_builds_are_one_sequence_of_bytes_with_the_title(name, tmp_path):
    for place in range(2):
        figure = FIGURES[name]()
        save_svg(figure, tmp_path / f"{place}.svg")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
    assert TITLE in words(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_of_a_figure_is_cut_off_at_its_edge(name):
    figure = FIGURES[name]()
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0) >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize("name", OF_TABLE)
def test_a_study_without_a_single_result_still_gives_a_figure(name):
    values = [column for column in decode_rows() if column.startswith(("tpot", "bandwidth"))]
    failed = decode_rows().assign(status="refused", why="", **dict.fromkeys(values, np.nan))
    for rows in (failed, failed.iloc[:0]):
        assert "no arm has a result" in said(OF_TABLE[name](rows, title=TITLE))


def test_the_other_figures_can_be_empty_too():
    assert "no arm has a result" in said(
        cost_against_age(age_rows().iloc[:0], slope_rows().iloc[:0], title=TITLE)
    )
    assert "no arm has a result" in said(error_against_age(drift_rows().iloc[:0], title=TITLE))


@pytest.mark.parametrize("name", OF_TABLE)
def test_what_cannot_run_here_is_named_with_its_reason_once(name):
    found = said(OF_TABLE[name](decode_rows(**RUNS), title=TITLE))
    reason = "(a graph is captured on a CUDA device, and this machine has none)"
    assert found.count(f"Not shown, unavailable: ring graph, ring graph fused {reason}.") == 1
    assert found.count("Not shown, unavailable: ring compiled int4 (int4 weights") == 1


# Engines


@pytest.mark.parametrize(
    ("engine", "family"),
    [
        ("prune", "prune each step"),
        ("prune-R64", "prune every R"),
        ("recompute", "others of the library"),
        ("llama_cpp-q8_0", "llama.cpp"),
        ("mlx_lm", "other peers"),
        ("ring", "ring, eager"),
        ("ring-fused", "ring, eager"),
        ("ring-compiled-fused", "ring, compiled"),
        ("ring-graph-fused", "ring, CUDA graph"),
        ("ring-bfloat16", "ring, 16 bit"),
        ("ring-compiled-fused-int8_dynamic", "ring, int8 or int4"),
    ],
)
def test_an_engine_has_the_look_of_its_family(engine, family):
    assert family_of(engine) == family


def test_engines_are_spelt_as_one_reads_them():
    assert spelt("llama_cpp-discardhalf") == "llama.cpp discard half"
    assert spelt("llama_cpp-q8_0") == "llama.cpp q8_0"
    assert spelt("ring-compiled-int8_dynamic") == "ring compiled int8 dynamic"


# Bandwidth


def test_every_engine_is_a_point_at_its_time_and_share_filled_if_it_is_exact():
    rows = decode_rows()
    (axes,) = time_against_bandwidth(rows, title=TITLE).axes
    marks = {
        tuple(np.round(line.get_xydata()[0], 6)): line.get_markerfacecolor() != "white"
        for line in axes.lines
        if len(line.get_xydata()) == 1
    }
    for row in rows[(rows["status"] == "ok") & (rows["engine"] != "recompute")].itertuples():
        place = tuple(np.round([row.tpot_ms_p50, 100 * row.bandwidth_share], 6))
        assert marks.pop(place) == row.exact
    assert not marks


def test_what_is_far_off_is_named_with_its_figures_and_all_others_have_labels():
    figure = time_against_bandwidth(decode_rows(), title=TITLE)
    assert "recompute at 41 ms and 2.1% (cap 512, 2 threads)" in said(figure)
    named = {label.get_text() for label in labels(figure)}
    shown = [engine for engine, (ms, _, _) in ENGINES.items() if ms < 40]
    missing = {spelt(engine) for engine in shown} - named
    assert all(f"{name}" in said(figure) for name in missing)
    assert len(missing) <= 2
    assert overlapping(figure) == []
    bold = {label.get_text() for label in labels(figure) if label.get_weight() == "bold"}
    assert {"prune", "llama.cpp", "llama.cpp discard64"} <= bold


def test_a_panel_for_each_run_names_it_and_its_bandwidth():
    rows = decode_rows(**RUNS)
    assert runs_of(rows) == [(512, 1), (512, 2), (2048, 1), (2048, 2)]
    titles = [axes.get_title("left") for axes in time_against_bandwidth(rows, title=TITLE).axes]
    assert titles[0] == "cap 512, 1 thread \N{MIDDLE DOT} 12 GB/s measured"
    assert titles[3] == "cap 2,048, 2 threads \N{MIDDLE DOT} 24 GB/s measured"


def test_a_run_without_the_yardstick_has_no_line_and_leaves_nothing_out():
    rows = decode_rows()
    figure = time_against_bandwidth(rows[rows["engine"] != "prune"], title=TITLE)
    assert "Far to the right" not in said(figure)
    assert "as prune reads" not in said(figure)


# Steps


def test_engines_are_sorted_by_their_median_and_both_speedups_stand_beside_it():
    rows = decode_rows()
    steps, strict, recompute = steps_and_speedups(rows, title=TITLE).axes
    ran = rows[rows["status"] == "ok"].sort_values("tpot_ms_p50")
    assert [label.get_text() for label in steps.get_yticklabels()] == [
        spelt(engine) for engine in ran["engine"]
    ]
    bars = [line.get_xdata().tolist() for line in steps.lines if len(line.get_xdata()) == 2]
    assert bars == ran[["tpot_ms_p50", "tpot_ms_p99"]].to_numpy().tolist()
    for axes, column in ((strict, "speedup_vs_strict"), (recompute, "speedup_vs_recompute")):
        spoken = [label.get_text() for label in labels(axes.figure) if label.axes is axes]
        assert len(spoken) == len(ran)
        assert spoken == [f"{one:.1f}x" if one >= 10 else f"{one:.2f}x" for one in ran[column]]


def test_a_run_without_recompute_says_so_and_shows_the_other_ratio():
    rows = decode_rows()
    columns = [f"speedup_vs_recompute{end}" for end in ("", "_lo", "_hi")]
    rows = rows[rows["engine"] != "recompute"].assign(**dict.fromkeys(columns, np.nan))
    found = said(steps_and_speedups(rows, title=TITLE))
    assert "Not measured: speed-up over recompute." in found
    assert "2.11x" in found


# Age


def test_slopes_stand_above_the_panels_with_their_intervals():
    found = words(cost_against_age(age_rows(), slope_rows(), title=TITLE))
    assert "ring: +0.3 [\N{MINUS SIGN}0.4, +1.1] %" in found
    assert "full: +924 [+905, +951] %" in found
    assert "full: no slope" in found
    assert "ring: +1 [\N{MINUS SIGN}3, +5]" in found
    assert "ring graph (a graph is captured" in " ".join(found.split())


def test_the_full_cache_is_beside_the_rings_in_time_and_bytes_but_has_no_error():
    time, held, error = cost_against_age(age_rows(), slope_rows(), title=TITLE).axes
    assert [len(axes.lines) for axes in (time, held)] == [3, 3]
    assert [len(line.get_xdata()) for line in error.lines] == [40, 40, 0]


def test_an_error_of_nothing_stands_at_the_floor_and_is_counted():
    rows = age_rows()
    rows.loc[0, "kl_to_oracle"] = -1e-17
    found = said(cost_against_age(rows, slope_rows(), title=TITLE))
    assert "1 KL below 1e-15 nats stand at 1e-15." in found


# Drift


def test_drift_has_a_panel_per_dtype_and_a_line_per_way():
    figure = error_against_age(drift_rows(), title=TITLE)
    assert [axes.get_title("left") for axes in figure.axes] == ["float32", "bfloat16", "float16"]
    rows = drift_rows().query("dtype == 'float32' and way == 'cumulative'")
    drawn = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert rows[["age", "error"]].to_numpy().tolist() in drawn
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend[0] == "by one position at every token"
    assert legend[-1] == "one rounding"


def test_errors_of_zero_are_counted_and_an_unknown_way_is_refused():
    rows = drift_rows()
    rows.loc[0, "error"] = 0.0
    assert "1 errors of zero" in said(error_against_age(rows, title=TITLE))
    with pytest.raises(ValueError, match="no such way to rotate: by hand; known: cumulative"):
        error_against_age(rows.assign(way="by hand"), title=TITLE)


@pytest.mark.parametrize("column", ["engine", "bandwidth_share"])
def test_a_missing_column_is_named(column):
    with pytest.raises(ValueError, match=f"lacks the columns {column}"):
        time_against_bandwidth(pd.DataFrame(decode_rows()).drop(columns=column), title=TITLE)
