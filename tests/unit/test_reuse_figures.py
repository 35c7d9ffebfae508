"""Figures of the reuse part: what they draw, what they leave out and say so, equal bytes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from tests.frames import RATIOS, TITLE, item_rows, reuse_arm, reuse_table, words

from kvpareto.records import write_parquet
from kvpareto.report.figures.needle_map import needle_heat_maps
from kvpareto.report.figures.overlap import (
    mean_jaccard,
    overlap_between_strategies,
    random_jaccard,
)
from kvpareto.report.figures.recomputed_tokens import tokens_of_item
from kvpareto.report.figures.reuse_pareto import score_against_ttft
from kvpareto.report.figures.reuse_ratio import score_and_fidelity
from kvpareto.report.figures.robustness import order_and_position
from kvpareto.report.figures.ttft_breakdown import PARTS, ttft_parts
from kvpareto.report.merged import computed_of_item, items_of_arms
from kvpareto.report.rows import KL_FLOOR
from kvpareto.report.strategies import with_lines
from kvpareto.report.style import save_svg, strategy_styles
from kvpareto.text.tasks.item import Item

ITEM = Item(
    id="boxes-0-0",
    prefix=(0,) * 4,
    chunks=tuple(tuple(range(start, start + 40)) for start in (0, 40, 80)),
    question=(1,) * 8,
    answers=("x",),
    support=((50, 54), (100, 103)),
)
COMPUTED = {"blend": [50, 51, 60, 90], "random": [4, 123], "full": [], "debug": None}


def decode(ids):
    """One letter per token; tokens 46 to 49 stand at the first positions of the support."""
    return "".join("$" if i == 46 else "\n" if i == 47 else chr(97 + i % 26) for i in ids)


FIGURES = {
    "reuse_pareto": lambda: score_against_ttft(reuse_table(("boxes",)), title=TITLE),
    "reuse_ratio": lambda: score_and_fidelity(reuse_table(), title=TITLE),
    "needle_map": lambda: needle_heat_maps(item_rows(), title=TITLE),
    "robustness": lambda: order_and_position(item_rows(), title=TITLE),
    "overlap": lambda: overlap_between_strategies(item_rows(), title=TITLE),
    "recomputed_tokens": lambda: tokens_of_item(ITEM, decode, COMPUTED, title=TITLE),
    "ttft_breakdown": lambda: ttft_parts(reuse_table(("boxes",)), title=TITLE),
}


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


@pytest.mark.parametrize(
    "build",
    [
        lambda: score_against_ttft(reuse_table().assign(ttft_ratio=np.nan), title=TITLE),
        lambda: score_and_fidelity(reuse_table().assign(status="refused"), title=TITLE),
        lambda: needle_heat_maps(item_rows().assign(depth=np.nan), title=TITLE),
        lambda: order_and_position(item_rows().assign(order="given", crossing=None), title=TITLE),
        lambda: overlap_between_strategies(item_rows().assign(ratio=np.nan), title=TITLE),
        lambda: tokens_of_item(ITEM, decode, {}, title=TITLE),
        lambda: ttft_parts(reuse_table().assign(ttft_ms=np.nan), title=TITLE),
    ],
)
def test_a_study_without_a_single_result_still_gives_a_figure(build):
    assert "no arm has a result" in words(build())


def test_rows_of_two_models_are_refused():
    rows = pd.concat([reuse_table(), reuse_table().assign(model="ref-qwen2")])
    for build in (score_against_ttft, score_and_fidelity, ttft_parts):
        with pytest.raises(ValueError, match="rows are of ref-llama, ref-qwen2"):
            build(rows, title=TITLE)


# Lines


def test_settings_that_differ_in_more_than_the_ratio_are_lines_of_their_own():
    rows = pd.DataFrame(
        {
            "strategy": ["debug", "debug", "debug", "attnlink", "full"],
            "setting": [
                "c1-r0.05-k5-aaaaaaaa", "c1-r0.4-k5-bbbbbbbb", "c2-r0.05-k5-cccccccc",
                "c0-k8-dddddddd", "c0-eeeeeeee",
            ],
        }
    )  # fmt: skip
    lines = with_lines(rows)
    assert lines["line"].tolist() == ["debug c1", "debug c1", "debug c2", "attnlink", "full"]
    assert lines["step"].tolist()[:4] == [0.05, 0.4, 0.05, 8]
    assert lines["step_name"].tolist() == ["5%", "40%", "5%", "k8", ""]


def test_controls_and_borders_are_hollow_and_no_two_strategies_look_alike():
    styles = strategy_styles(["none", "full", "cat", "blend", "tail", "random", "oracle", "new"])
    hollow = [name for name, style in styles.items() if style.hollow]
    assert hollow == ["none", "full", "cat", "tail", "random", "oracle"]
    assert len(set(styles.values())) == len(styles)


# Score against time


def paths(axes):
    """The drawn lines with more than one point, rounded."""
    found = [np.round(line.get_xydata(), 3).tolist() for line in axes.get_lines()]
    return [line for line in found if len(line) > 1]


def test_a_strategy_is_a_path_through_its_ratios_and_full_prefill_stands_at_one():
    figure = score_against_ttft(reuse_table(("needle",)).iloc[::-1], title=TITLE)
    (axes,) = figure.axes
    rows = [reuse_arm("blend", ratio=ratio) for ratio in RATIOS]
    assert [[round(r["ttft_ratio"], 3), round(100 * r["score"], 3)] for r in rows] in paths(axes)
    assert [1.0, 90.0] in [line.get_xydata()[0].tolist() for line in axes.get_lines()]
    assert axes.get_xlabel() == "TTFT (times full prefill, log.)"
    assert axes.get_title(loc="left") == "needle · qa_f1"
    assert {"5%", "40%", "k32"} <= set(words(figure).split("\n"))


def test_tasks_and_strategies_that_nobody_timed_are_named_and_failures_with_their_status():
    rows = reuse_table()
    untimed = (rows["task"] == "needle") | rows["strategy"].isin(["oracle", "random"])
    rows.loc[untimed, "ttft_ratio"] = np.nan
    said = words(score_against_ttft(rows, title=TITLE))
    assert "Not timed: needle, oracle, random." in said
    assert "debug 5% on boxes (oom)" in said
    assert "random 5%" not in said


def test_what_is_evicted_after_the_first_token_is_not_in_the_figures_of_time():
    table = reuse_table(("boxes",))
    rows = pd.concat([table, table.assign(drop="snapkv", score=0.123)])
    with_drops, without = (score_against_ttft(one, title=TITLE) for one in (rows, table))
    assert [paths(axes) for axes in with_drops.axes] == [paths(axes) for axes in without.axes]


# Score and fidelity against the ratio


def test_borders_are_lines_across_and_links_stand_at_their_true_share():
    upper, lower = score_and_fidelity(reuse_table(("boxes",)), title=TITLE).axes
    assert upper.get_ylabel() == "score (%)"
    assert "nats" in lower.get_ylabel()
    assert lower.get_yscale() == "log"
    across = [path for path in paths(upper) if [x for x, _ in path] == [0, 1]]
    assert sorted(path[0][1] for path in across) == [20, 20, 90]
    assert [1, 8, 32] in [[x for x, _ in path] for path in paths(upper)]
    assert len([path for path in paths(lower) if [x for x, _ in path] == [0, 1]]) == 2


def test_a_kl_of_rounding_errors_stands_at_the_floor_and_is_said():
    rows = reuse_table(("boxes",))
    rows.loc[rows["strategy"] == "oracle", ["kl_first_token", "kl_lo", "kl_hi"]] = 0.0
    figure = score_and_fidelity(rows, title=TITLE)
    assert "3 KL below 1e-05 nats" in words(figure)
    assert figure.axes[1].get_ylim()[0] < KL_FLOOR


# Items


def test_a_map_has_a_cell_for_each_depth_and_length_with_its_mean():
    rows = item_rows()
    rows.loc[(rows["strategy"] == "blend") & (rows["length"] == 512), "score"] = np.nan
    figure = needle_heat_maps(rows, title=TITLE)
    maps = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert "blend 15%" in maps
    assert "attnlink k8" in maps
    mesh = maps["none"].collections[0].get_array()
    own = rows[(rows["strategy"] == "none") & (rows["depth"] == 0.5)]
    expected = 100 * own.groupby("length")["score"].mean()
    assert mesh[1].tolist() == expected.tolist()
    numbers = [text.get_text() for text in maps["blend 15%"].texts]
    assert numbers[1::2] == ["\N{EN DASH}"] * 3


def test_a_strategy_in_two_settings_is_refused_and_one_without_items_is_named():
    rows = pd.concat([item_rows(0.05), item_rows(0.4)])
    for build in (needle_heat_maps, order_and_position):
        with pytest.raises(
            ValueError, match="one setting of a strategy, and the items of attnlink"
        ):
            build(rows, title=TITLE)
    rows = item_rows()
    rows.loc[rows["strategy"] == "debug", "score"] = np.nan
    for build in (needle_heat_maps, order_and_position):
        assert "No result: debug." in words(build(rows, title=TITLE))


def test_only_traits_that_vary_have_a_panel_and_the_interval_says_its_kind():
    figure = order_and_position(item_rows(), title=TITLE)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["order of the chunks", "distance between linked facts"]
    assert "Wilson, scores are 0 or 1" in words(figure)
    rows = item_rows().assign(score=np.linspace(0.1, 0.9, len(item_rows())))
    assert "bootstrap over items" in words(order_and_position(rows, title=TITLE))


def test_similarity_of_choices_is_shared_by_all():
    rows = pd.DataFrame(
        {
            "line": ["a", "a", "b", "b", "c"],
            "item": ["i", "j", "i", "j", "k"],
            "computed": [[1, 2], [3, 4], [2, 3], [3, 4], [1]],
        }
    )
    table = mean_jaccard(rows)
    assert table.loc["a", "b"] == table.loc["b", "a"] == pytest.approx((1 / 3 + 1) / 2)
    assert table.loc["a", "c"] != table.loc["a", "c"]
    assert table.loc["a", "a"] != table.loc["a", "a"]


def test_chance_similarity_is_that_of_random_choices():
    draws = np.random.default_rng(0)
    sets = [set(draws.choice(40, 10, replace=False)) for _ in range(4000)]
    seen = np.mean([len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)])
    rows = pd.DataFrame({"document_tokens": [40], "computed": [list(range(10))]})
    assert random_jaccard(rows) == pytest.approx(seen, abs=0.005)


def test_overlap_is_shown_where_ratios_are_equal_and_leave_a_choice():
    rows = pd.concat([item_rows(0.05), item_rows(0.15), item_rows(1.0)])
    figure = overlap_between_strategies(rows, title=TITLE)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:-1]]
    assert [title.split(" ·")[0] for title in titles] == ["ratio 5%", "ratio 15%"]
    assert "Without a ratio to be equal at: attnlink, cat, full, none." in words(figure)


def test_a_strategy_that_failed_is_named_beside_the_overlaps_of_the_others():
    rows = item_rows()
    rows.loc[rows["strategy"] == "debug", "computed"] = None
    figure = overlap_between_strategies(rows, title=TITLE)
    assert "No result: debug." in words(figure)
    assert len(figure.axes[0].get_xticks()) == 3


# One item


def test_every_recomputed_token_is_a_stroke_and_every_chunk_start_a_tick():
    axes = tokens_of_item(ITEM, decode, COMPUTED, title=TITLE).axes[0]
    strokes = [one for one in axes.collections if isinstance(one, PolyCollection)]
    starts = [sorted(path.vertices[:, 0].min() for path in one.get_paths()) for one in strokes]
    assert starts == [[], COMPUTED["blend"], COMPUTED["random"]]
    assert axes.get_xticks().tolist() == [4, 44, 84, 124]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["full", "blend", "random"]


def test_the_text_of_the_support_is_written_with_marks_for_line_ends_and_no_mathematics():
    figure = tokens_of_item(ITEM, decode, COMPUTED, title=TITLE)
    said = words(figure)
    assert "$\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}wx" in said
    assert not any(text.get_parse_math() for text in figure.axes[1].texts[1:])
    assert "3% / 29%" in said
    assert "No result: debug." in said


def test_a_position_outside_the_document_is_refused():
    with pytest.raises(ValueError, match="blend computed position 124 of item boxes-0-0"):
        tokens_of_item(ITEM, decode, {"blend": [124]}, title=TITLE)


def test_an_arm_that_failed_stays_in_the_frame_of_all_arms(tmp_path):
    rows = item_rows()
    arms = []
    for place, strategy in enumerate(("blend", "debug")):
        own = rows[rows["strategy"] == strategy].drop(columns=["strategy", "setting", "ratio"])
        own = own if strategy == "blend" else pd.DataFrame()
        write_parquet(tmp_path / f"{place}.parquet", own)
        arms.append({"strategy": strategy, "setting": f"c1-r0.15-{place}", "ratio": 0.15})
    files = [str(tmp_path / f"{place}.parquet") for place in range(2)]
    frame = items_of_arms(files, [arm | {"drop": "none"} for arm in arms])
    assert frame["strategy"].value_counts().to_dict() == {"blend": 24, "debug": 1}
    assert "No result: debug." in words(needle_heat_maps(frame, title=TITLE))
    item = frame["item"].iloc[0]
    expected = rows.loc[(rows["strategy"] == "blend") & (rows["item"] == item), "computed"].iloc[0]
    assert computed_of_item(frame, item) == {"blend": list(expected), "debug": None}


# Parts of the time


def test_parts_of_a_bar_follow_each_other_and_a_cold_store_is_a_tick():
    axes = ttft_parts(reuse_table(("boxes",)), title=TITLE).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names[:4] == ["full prefill", "full", "cat", "blend 5%"]
    row = reuse_arm("blend", ratio=0.05)
    bars = [bar for bar in axes.patches if round(bar.get_y() + bar.get_height() / 2) == 3]
    assert [bar.get_width() for bar in bars] == [row[part] for part in PARTS]
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(row["ttft_ms"])
    ticks = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == "|"]
    assert [row["ttft_cold_ms"], 3.0] in ticks[0]


def test_times_taken_over_from_another_task_make_no_panel():
    rows = reuse_table()
    figure = ttft_parts(rows.assign(timed_on="boxes"), title=TITLE)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["boxes"]
    assert "debug 5% on boxes (oom)" in words(figure)
