"""Figures of the merge part: what they draw, what they leave out and say so, equal bytes."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from tests.frames import TITLE, words

from kvpareto.merge.gate import curves
from kvpareto.report.figures.merge_gate import gates
from kvpareto.report.figures.merge_mass import mass_against_noise
from kvpareto.report.figures.merge_memory import memory_against_chunks
from kvpareto.report.figures.merge_noise import score_against_noise
from kvpareto.report.figures.merge_text import ppl_against_chunks
from kvpareto.report.merge_tables import MEMORY, MERGE_COLUMNS, PPL
from kvpareto.report.offset_lines import offset_lines
from kvpareto.report.style import offset_styles, save_svg

CHUNKS = (1, 3, 17)
SETTINGS = {
    "full": [""],
    "zero": [""],
    "concat": [""],
    "energy_deficit": ["K1", "K2", "K4"],
    "hard_drop": ["K2-t0.5-head", "K2-t2.0-head", "K2-t0.5-average", "K2-t2.0-average"],
    "decrowd": [""],
}
GATES = [
    {"offset": "energy_deficit", "parameters": {"top_k": 1}},
    {"offset": "energy_deficit", "parameters": {"top_k": 4}},
    {"offset": "mean_field", "parameters": {}},
    {"offset": "hard_drop", "parameters": {"threshold": 0.5}},
    {"offset": "hard_drop", "parameters": {"threshold": 2.0}},
    {"offset": "tiered", "parameters": {"threshold": 2.0}},
    {"offset": "decrowd", "parameters": {}},
]


def row(task, positions, arm, setting, chunks):
    """A row of `merge`: the more chunks, the worse, and each method at a height of its own."""
    place, text = list(SETTINGS).index(arm), task == "prose"
    score = 15 + place + math.log(chunks) if text else 0.9 - 0.04 * place - 0.01 * chunks
    kl = 0.0 if arm in ("zero", "concat") else 0.01 * chunks * (1 + place)
    whole = text or arm in ("full", "concat")
    parts = [positions, *filter(None, [setting]), "1f3a9c2e"]
    return {
        "model": "ref-llama", "task": task, "positions": positions, "arm": arm,
        "setting": "-".join(parts), "chunks": chunks, "gold_chunks": 0.0 if text else 1.0,
        "extrapolating": positions == "sequential" and chunks > 3, "status": "ok",
        "score_name": PPL if text else "qa_f1", "score": score, "score_lo": 0.9 * score,
        "score_hi": 1.05 * score, "kl_to_full": kl, "kl_lo": 0.8 * kl, "kl_hi": 1.2 * kl,
        "gold_mass_before": np.nan if whole else 0.5 / chunks,
        "gold_mass": np.nan if whole else 0.4 / chunks,
        **dict.fromkeys(
            ["gold_mass_before_lo", "gold_mass_before_hi", "gold_mass_lo", "gold_mass_hi"], np.nan
        ),
        "ppl_delta_pct": 0.5 * place, "ppl_delta_lo": 0.4 * place, "ppl_delta_hi": 0.7 * place,
    }  # fmt: skip


def memory_row(run, chunks):
    """A peak of 1,000 bytes, and 50 bytes more per chunk unless it goes chunk by chunk."""
    control = run == "concatenated"
    ratio = 1.0 if control else 1.5
    return {
        "model": "ref-llama", "task": MEMORY, "run": run, "status": "ok", "chunks": chunks,
        "arm": "concat" if control else "energy_deficit", "top_k": np.nan if control else 2,
        "tokens": 256 * chunks,
        "peak_extra_bytes": 1000 + (0 if run == "chunk by chunk" else 50 * chunks),
        **{
            f"{part}_ratio{end}": ratio * by
            for part in ("pass", "step")
            for end, by in (("", 1), ("_lo", 0.9), ("_hi", 1.2))
        },
    }  # fmt: skip


def merge_table():
    """Two tasks, a text, memory; deletion at shared positions only; one arm failed."""
    rows = [
        row(task, positions, arm, setting, chunks)
        for task, positions in (
            ("keys", "shared"), ("keys", "sequential"), ("needle", "shared"), ("prose", "shared")
        )
        for arm, settings in SETTINGS.items()
        for setting in settings
        for chunks in CHUNKS
        if positions == "shared" or arm != "hard_drop"
    ]  # fmt: skip
    rows += [
        memory_row(run, chunks)
        for run in ("chunk by chunk", "at once", "concatenated")
        for chunks in (4, 8, 16)
    ]
    table = pd.DataFrame(rows).reindex(columns=list(MERGE_COLUMNS))
    failed = (table["arm"] == "decrowd") & (table["task"] == "needle")
    table.loc[failed, ["score", "kl_to_full", "gold_mass", "gold_chunks"]] = np.nan
    table.loc[failed, "extrapolating"] = None
    table.loc[failed, "status"] = "oom"
    return table


OF_TABLE = {
    "merge_noise": score_against_noise,
    "merge_mass": mass_against_noise,
    "merge_memory": memory_against_chunks,
    "merge_text": ppl_against_chunks,
}
FIGURES = {name: lambda build=build: build(merge_table(), title=TITLE)
           for name, build in OF_TABLE.items()} | {
    "merge_gate": lambda: gates(curves(GATES), title=TITLE)
}  # fmt: skip


def paths(axes):
    """The drawn lines with more than one point, rounded."""
    found = [np.round(line.get_xydata(), 3).tolist() for line in axes.get_lines()]
    return [line for line in found if len(line) > 1]


def said(figure):
    """All text of a figure, as if no line were broken."""
    return " ".join(words(figure).split())


def rings(axes):
    """Where points are marked as extrapolating."""
    marks = [line for line in axes.get_lines() if line.get_markeredgecolor() == "#e8821e"]
    return [x for line in marks for x in line.get_xdata()]


@pytest.mark.parametrize("name", FIGURES)
def test_two_builds_are_one_sequence_of_bytes_with_the_title(name, tmp_path):
    figures = [FIGURES[name]() for _ in range(2)]
    for place, figure in enumerate(figures):
        save_svg(figure, tmp_path / f"{place}.svg")
    assert (tmp_path / "0.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()
    assert TITLE in words(figures[0])


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
    table = merge_table()
    values = [column for column in table if column.startswith(("score", "kl", "gold", "peak"))]
    values.remove("score_name")
    failed = table.assign(status="refused", **dict.fromkeys(values, np.nan))
    for rows in (failed, table.iloc[:0], table.iloc[:0].astype(object)):
        assert "no arm has a result" in words(OF_TABLE[name](rows, title=TITLE))


def test_a_study_without_a_gate_still_gives_a_figure():
    assert "no arm has a result" in words(gates(curves([]), title=TITLE))


@pytest.mark.parametrize("name", OF_TABLE)
def test_rows_of_two_models_are_refused(name):
    rows = pd.concat([merge_table(), merge_table().assign(model="ref-neox")])
    with pytest.raises(ValueError, match="rows are of ref-llama, ref-neox"):
        OF_TABLE[name](rows, title=TITLE)


# Lines


def test_controls_are_hollow_and_no_two_offsets_look_alike():
    styles = offset_styles([*SETTINGS, "tiered", "drop_sink", "ape", "mean_field", "new"])
    assert [name for name, style in styles.items() if style.hollow] == ["full", "concat", "zero"]
    assert len(set(styles.values())) == len(styles)


def test_words_of_a_setting_are_lines_and_of_its_numbers_the_middle_one_is_taken():
    table = merge_table()
    shown, notes = offset_lines(table[table["task"] == "keys"])
    assert set(shown["line"]) == {
        "full", "zero", "energy deficit K2", "hard drop K2 t0.5 head",
        "hard drop K2 t0.5 average", "decrowd",
    }  # fmt: skip
    assert "others: 2 of energy deficit, 2 of hard drop." in " ".join(notes)


def test_a_setting_that_more_panels_have_comes_before_the_middle_one():
    table = merge_table()
    deficit = table[table["arm"] == "energy_deficit"].dropna(subset="setting")
    rare = (deficit["positions"] == "sequential") & ~deficit["setting"].str.contains("K4")
    shown, _ = offset_lines(deficit[~rare])
    assert set(shown["line"]) == {"energy deficit K4"}


def test_concat_is_only_left_out_beside_zero_and_the_note_says_how_far_apart_they_are():
    rows = merge_table()[lambda table: table["task"] == "keys"]
    rows.loc[rows["arm"] == "zero", "score"] = 0.5
    rows.loc[rows["arm"] == "concat", "score"] = 0.75
    shown, notes = offset_lines(rows)
    assert "concat" not in set(shown["arm"])
    assert "concat, which differs from zero by at most 0.25, is not drawn." in notes
    alone, _ = offset_lines(rows[rows["arm"] != "zero"])
    assert "concat" in set(alone["arm"])


def test_of_groups_that_overlap_the_one_with_most_points_makes_the_line():
    rows = merge_table()[lambda table: table["task"] == "keys"]
    other = rows[(rows["arm"] == "zero") & (rows["chunks"] > 1)].assign(score=0.1)
    other["setting"] = other["setting"].str.replace("1f3a9c2e", "0f3a9c2e")
    shown, notes = offset_lines(pd.concat([other, rows], ignore_index=True))
    zero = shown[(shown["arm"] == "zero") & (shown["positions"] == "shared")]
    assert zero["chunks"].tolist() == list(CHUNKS)
    assert (zero["score"] > 0.1).all()
    assert "4 points of further groups of the study are left out." in notes


# Noise


def test_lines_are_over_chunks_without_the_answer_and_deletion_has_rows_of_its_own():
    figure = score_against_noise(merge_table(), title=TITLE)
    names = ["keys, shared", "keys, sequential", "needle, shared"]
    assert [axes.get_title(loc="left") for axes in figure.axes[:3]] == names
    offsets, deletion, kl, _ = figure.axes[::3]  # shared keys
    deficit = [row("keys", "shared", "energy_deficit", "K2", chunks) for chunks in CHUNKS]
    drop = [row("keys", "shared", "hard_drop", "K2-t0.5-head", chunks) for chunks in CHUNKS]
    for axes, other, own in ((offsets, deletion, deficit), (deletion, offsets, drop)):
        path = [[one["chunks"] - 1, round(100 * one["score"], 3)] for one in own]
        assert path in paths(axes)
        assert path not in paths(other)
    assert kl.get_yscale() == "log"
    assert [[one["chunks"] - 1, one["kl_to_full"]] for one in deficit] in paths(kl)


def test_a_point_past_the_trained_length_has_a_ring_and_no_other_has():
    figure = score_against_noise(merge_table(), title=TITLE)
    shared, sequential = figure.axes[:2]
    assert rings(shared) == []
    assert rings(sequential) == [16] * 4  # full, zero, energy deficit, decrowd
    assert "positions pass the trained length" in words(figure)


@pytest.mark.parametrize("build", [score_against_noise, mass_against_noise])
def test_an_arm_that_failed_is_named_with_its_status(build):
    assert "Not shown: decrowd on needle (oom)." in said(build(merge_table(), title=TITLE))


def test_kl_of_rounding_errors_is_counted_in_a_note():
    assert "9 KL below 1e-05 nats" in said(score_against_noise(merge_table(), title=TITLE))


def test_mass_has_one_axis_before_and_after_and_no_arm_that_is_not_in_chunks():
    figure = mass_against_noise(merge_table(), title=TITLE)
    before, after = figure.axes[::3]
    assert before.get_ylim() == after.get_ylim()
    assert [[chunks - 1, round(50 / chunks, 3)] for chunks in CHUNKS] in paths(before)
    assert [[chunks - 1, round(40 / chunks, 3)] for chunks in CHUNKS] in paths(after)
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "zero" in legend
    assert "full" not in legend


# Text


def test_a_text_is_drawn_over_its_chunks_and_against_zero():
    figure = ppl_against_chunks(merge_table(), title=TITLE)
    upper, change = figure.axes[0], figure.axes[2]
    own = [row("prose", "shared", "energy_deficit", "K2", chunks) for chunks in CHUNKS]
    for axes, column in ((upper, "score"), (change, "ppl_delta_pct")):
        assert [[one["chunks"], round(one[column], 3)] for one in own] in paths(axes)


# Gates


def test_gates_that_are_one_curve_are_one_line_and_differ_by_what_is_named():
    figure = gates(curves(GATES), title=TITLE)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["energy deficit; mean field", "hard drop t=0.5", "hard drop t=2.0; tiered"]


def test_a_gate_halves_at_the_target_and_a_threshold_is_a_step_that_keeps_its_own_value():
    left, right = gates(curves(GATES), title=TITLE).axes
    for axes, middle in ((left, -math.log(2)), (right, 0.5)):
        soft, hard = axes.get_lines()[:2]
        x = soft.get_xdata()
        assert np.interp(0, x, soft.get_ydata()) == pytest.approx(middle, abs=1e-6)
        assert hard.get_drawstyle() == "steps-post"
        kept = hard.get_ydata() == (0 if axes is left else 1)
        assert hard.get_xdata()[kept].min() == pytest.approx(-0.5, abs=1e-6)


# Memory


def test_the_legend_has_the_slope_of_the_peak_and_the_control_is_a_line_at_one():
    figure = memory_against_chunks(merge_table(), title=TITLE)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [
        "chunk by chunk, energy deficit K2: 0 bytes per chunk",
        "at once, energy deficit K2: 50 bytes per chunk",
        "concatenated: 50 bytes per chunk",
    ]
    peak, question, step = figure.axes
    assert peak.get_xlabel() == "chunks of 256 tokens"
    assert [[chunks, 0.001] for chunks in (4, 8, 16)] in paths(peak)
    for axes in (question, step):
        assert [[0, 1], [1, 1]] in paths(axes)
        assert [[chunks, 1.5] for chunks in (4, 8, 16)] in paths(axes)


def test_a_run_that_failed_is_named_beside_the_others():
    rows = merge_table()
    failed = rows["run"] == "at once"
    rows.loc[failed, ["status", "peak_extra_bytes", "pass_ratio"]] = ["oom", np.nan, np.nan]
    found = said(memory_against_chunks(rows, title=TITLE))
    assert "Not shown: at once, energy deficit K2 (oom)." in found
    assert "chunk by chunk, energy deficit K2: 0 bytes" in found
