"""Figures: they render whatever a study gives, say what they leave out, and repeat to the byte."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tests.frames import TITLE, arm, study, sweep, typed, words

from kvpareto.report.figures.attended import ppl_against_attended
from kvpareto.report.figures.budget import ppl_against_budget
from kvpareto.report.figures.memory import memory_split_bars
from kvpareto.report.figures.nll_trace import SMOOTH, nll_trace
from kvpareto.report.figures.overhead import prune_overhead
from kvpareto.report.figures.pareto import pareto_figure
from kvpareto.report.figures.period import ppl_against_period
from kvpareto.report.figures.sinks import ppl_against_sinks
from kvpareto.report.figures.spikes import MOST_PANELS, loss_around_prunes, panel_order
from kvpareto.report.figures.tpot import tpot_against_period
from kvpareto.report.style import save_svg

MIB = 2**20


def budgets():
    """Policies at one, two and four budgets, recompute, and an arm that failed."""
    rows = [
        arm(policy, f"S4 R{period}", cap, "peak", ppl=bonus + 256 / cap, period=period)
        for policy, period, bonus in (("snapkv", 16, -1), ("random", 16, 3), ("h2o", 64, 0))
        for cap in (64, 128, 256, 512)
    ]
    rows += [arm("lazy", f"S4 R{r}", cap, "peak") for cap in (256, 512) for r in (16, 128)]
    rows += [arm("recompute", "", cap, "peak", ppl=-1) for cap in (64, 512)]
    alias = {"alias_of": "lazy/S4-R16"}
    rows += [arm("overlap", "S4 R16 O9", cap, "peak", **alias) for cap in (256, 512)]
    rows += [arm("knorm", "S4 R16", 512, "peak"), arm("lazy", "S4 R16", 128)]
    rows[2] |= {"status": "oom"}
    return typed(rows)


def timed():
    """The sweep, recompute, lazy pruning in the soft ring, and strict streaming in both rings."""
    more = [
        arm("recompute", "", cap, "peak", ratio=6.2, layout="none", sinks=None)
        for cap in (256, 512)
    ]
    more += [
        arm("start_recent", f"S{sinks}", 512, ratio=0.6 + sinks / 1000, layout=layout, sinks=sinks)
        for layout in ("soft_ring", "ring")
        for sinks in (4, 32)
    ]
    soft = {"layout": "soft_ring", "period": 64, "trigger": "overflow"}
    more += [arm("lazy", "S4 R64 overflow", 512, ratio=0.55, **soft)]
    return pd.concat([sweep(), typed(more)], ignore_index=True)


def sink_sweep():
    rows = [
        arm("start_recent", f"S{sinks}", cap, sinks=sinks, ppl=0.1 * sinks)
        for cap in (256, 512)
        for sinks in (0, 4, 64)
    ]
    rows += [arm("start_recent", "S4", 256, "peak"), arm("lazy", "S4 R16", 256, ppl=77)]
    rows[1] |= {"status": "invalid"}
    return typed(rows)


def probes(layouts=("compact",)):
    """Rows of profile_prune_overhead; strict arms have no step without a prune."""
    rows = []
    for layout in layouts:
        for period in (1, 16):
            figures = {"forward_ms": 4.0, "update_ms": 2.0 / period, "prune_step_ms": 6.0}
            if period > 1:
                figures["plain_step_ms"] = 4.1
            rows += [
                {
                    "probe": "profile_prune_overhead",
                    "model": "m",
                    "text": "t",
                    "setting": f"cap512-S4-R{period}-{layout}",
                    "measure": measure,
                    "value": value,
                    "lo": 0.9 * value,
                    "hi": 1.2 * value,
                    "status": "ok",
                }
                for measure, value in figures.items()
            ]
    return pd.DataFrame(rows)


def spikes():
    """An event study of lazy and other arms at two caps."""
    rows = [
        arm("lazy", f"S4 R{period} overflow", cap, cap_on, period=period)
        for cap in (256, 512)
        for cap_on in ("post_prune", "peak")
        for period in (128, 16, 64)
    ]
    rows += [arm("lazy", "S32 R16 overflow", 512, period=16, sinks=32)]
    rows += [arm(name, "S4 R16", 512, "peak", period=16) for name in ("tova", "h2o")]
    rows += [arm("lazy", "S4 R64 overflow W9", 512, "none", period=64)]
    rows += [arm("lazy", "S4 R4", 512, period=4, status="not studied")]
    lazy = {"trigger": "overflow"}
    rows = [row | lazy if row["policy"] == "lazy" else row for row in rows]
    return typed(rows).assign(excess=lambda frame: frame["period"] == 64)


def curves(arms):
    offsets = np.arange(-16, 17)
    shape = {"offset": offsets, "mean": 0.01 * (offsets > 0), "null_lo": -0.02, "null_hi": 0.02}
    keys = arms[["policy", "setting"]].to_dict("records")
    return pd.concat([pd.DataFrame(shape | key) for key in keys])


def trace(period=16, tokens=200):
    positions = np.arange(512, 512 + tokens)
    return pd.DataFrame(
        {
            "position": positions,
            "pruned": (positions - 511) % period == 0,
            "nll_nats": 2.0 + 0.1 * (positions >= 600),
            "nll_nats_reference": 2.0,
        }
    )


def memory():
    """Strict streaming in two layouts and with staging, a policy with state, and a refused one."""
    rows = []
    for policy, layout, staging in (
        ("start_recent", "compact", False),
        ("start_recent", "compact", True),
        ("start_recent", "ring", False),
        ("h2o", "compact", False),
    ):
        sizes = {"weights": 16, "kv": 4, "cache_state": 1 * (policy == "h2o")}
        sizes |= {"staging": 2 * staging, "transient": 3, "logits": 1}
        rows += [
            {
                "policy": policy,
                "setting": f"cap512-{policy}-1f3a9c2e",
                "layout": layout,
                "staging": staging,
                "part": part,
                "bytes": size * MIB,
                "analytic_bytes": np.nan if part == "transient" else size * MIB,
                "status": "ok",
            }
            for part, size in sizes.items()
        ]
    refused = {"policy": "static_cache", "setting": "cap512-S4-R16-1f3a9c2e", "layout": "compact"}
    rows.append(refused | {"staging": False, "part": "all", "status": "refused"})
    return pd.DataFrame(rows)


FIGURES = {
    "pareto": lambda: pareto_figure(study(12), title=TITLE),
    "budget": lambda: ppl_against_budget(budgets(), trained_length=512, title=TITLE),
    "period": lambda: ppl_against_period(sweep(), title=TITLE),
    "attended": lambda: ppl_against_attended(sweep(400), trained_length=512, title=TITLE),
    "tpot": lambda: tpot_against_period(timed(), title=TITLE),
    "overhead": lambda: prune_overhead(probes(("compact", "soft_ring")), title=TITLE),
    "sinks": lambda: ppl_against_sinks(sink_sweep(), title=TITLE),
    "spikes": lambda: loss_around_prunes(curves(spikes()), spikes(), title=TITLE),
    "nll_trace": lambda: nll_trace({"lazy R16": trace(), "lazy R64": trace(64)}, title=TITLE),
    "memory": lambda: memory_split_bars(memory(), title=TITLE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_two_builds_are_one_sequence_of_bytes_that_needs_no_font_of_the_reader(name, tmp_path):
    for copy in ("one", "two"):
        save_svg(FIGURES[name](), tmp_path / f"{copy}.svg")
    first = (tmp_path / "one.svg").read_bytes()
    assert first == (tmp_path / "two.svg").read_bytes()
    assert b"<dc:date>" not in first
    assert b"<text" not in first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_its_title_and_pyplot_keeps_nothing_of_it(name):
    assert TITLE in words(FIGURES[name]())
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_of_a_figure_is_cut_off_at_its_edge(name):
    figure = FIGURES[name]()
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    width, height = figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height


@pytest.mark.parametrize(
    "build",
    [
        lambda: pareto_figure(study(2).query("status != 'ok'"), title=TITLE),
        lambda: pareto_figure(study(2).assign(status="not timed"), title=TITLE),
        lambda: ppl_against_period(sweep().assign(status="timeout"), title=TITLE),
        lambda: ppl_against_period(sweep().query("policy == 'full'"), title=TITLE),
        lambda: ppl_against_attended(sweep().assign(status="oom"), trained_length=512, title=TITLE),
        lambda: ppl_against_attended(
            sweep().query("policy != 'lazy'"), trained_length=512, title=TITLE
        ),
        lambda: ppl_against_budget(budgets().iloc[:0], trained_length=512, title=TITLE),
        lambda: ppl_against_budget(
            budgets().query("policy == 'recompute'"), trained_length=512, title=TITLE
        ),
        lambda: tpot_against_period(timed().assign(status="oom"), title=TITLE),
        lambda: prune_overhead(probes().assign(probe="another"), title=TITLE),
        lambda: ppl_against_sinks(sink_sweep().query("sinks == 4"), title=TITLE),
        lambda: loss_around_prunes(
            curves(spikes()), spikes().assign(status="not studied"), title=TITLE
        ),
        lambda: memory_split_bars(memory().query("status != 'ok'"), title=TITLE),
    ],
)
def test_a_study_without_a_single_result_still_gives_a_figure(build):
    figure = build()
    assert isinstance(figure, Figure)
    assert "no arm has a result" in words(figure)


def test_a_frame_without_its_columns_is_refused_by_name():
    with pytest.raises(ValueError, match="lacks the columns within, ppl_delta_hi"):
        pareto_figure(study(2).drop(columns=["within", "ppl_delta_hi"]), title=TITLE)


def test_rows_of_two_models_are_refused():
    rows = sweep()
    rows.loc[0, "model"] = "ref-llama"
    with pytest.raises(ValueError, match="one model, and the rows are of ref-llama, ref-neox"):
        ppl_against_period(rows, title=TITLE)


# Period and attended length


def test_two_arms_at_one_place_of_a_line_are_refused():
    rows = pd.concat([sweep(), sweep()], ignore_index=True)
    with pytest.raises(ValueError, match="two arms of one period at cap 256, overflow"):
        ppl_against_period(rows, title=TITLE)


def test_period_lines_begin_at_the_strict_arm_and_leave_other_policies_out():
    figure = ppl_against_period(sweep(), title=TITLE)
    lines = [line for axes in figure.axes for line in axes.get_lines() if len(line.get_xdata()) > 2]
    starts = [min(line.get_xdata()) for line in lines if line.get_linestyle() != "None"]
    assert set(starts) == {1.0}
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["cap 256", "cap 512"]
    said = words(figure)
    assert "overflow, post-prune length capped, S4" in said
    assert "clock, peak length capped, S4" in said
    assert "lazy R64 at cap 256 (oom)" in said
    assert "random" not in said


def test_a_lazy_arm_of_period_one_replaces_the_strict_arm():
    rows = sweep()
    extra = rows[(rows["policy"] == "lazy") & (rows["period"] == 4)].assign(period=1)
    ppl_against_period(pd.concat([rows, extra], ignore_index=True), title=TITLE)


def test_the_trained_length_is_a_line_or_a_note():
    figure = ppl_against_attended(sweep(), trained_length=512, title=TITLE)
    said = words(figure)
    assert "trained length 512 lies to the right" in said
    upright = [line for line in figure.axes[1].get_lines() if line.get_linestyle() == "--"]
    assert [list(line.get_xdata()) for line in upright] == [[512, 512]]
    assert "R128" in said
    assert "R1\n" in said


def test_attended_lengths_are_compared_at_one_number_of_sinks():
    more = [arm("start_recent", "S64", 512, sinks=64, peak_attended_len=99)]
    figure = ppl_against_attended(
        pd.concat([sweep(), typed(more)]), trained_length=512, title=TITLE
    )
    assert "S4" in words(figure)
    assert all(axes.get_xlim()[0] > 99 for axes in figure.axes)


# Budget


def test_a_budget_line_is_the_setting_of_a_policy_with_the_most_budgets():
    figure = ppl_against_budget(budgets(), trained_length=512, title=TITLE)
    said = words(figure)
    assert "snapkv · S4 R16" in said
    assert "lazy · S4 R16\n" in said
    assert "R128" not in said
    assert "knorm" not in said
    assert "overlap" not in said
    assert "snapkv at cap 256 (oom)" in said


def test_recompute_has_a_change_but_no_perplexity_of_its_own():
    figure = ppl_against_budget(budgets(), trained_length=512, title=TITLE)
    rows = budgets()
    changes = rows.loc[rows["policy"] == "recompute", "ppl_delta_strict_pct"].tolist()
    left, right = (
        [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_xdata()) == 2]
        for axes in figure.axes
    )
    assert changes in right
    assert rows.loc[rows["policy"] == "recompute", "ppl"].tolist() not in left


# Time


def test_both_scales_of_a_time_are_the_same_time():
    figure = tpot_against_period(timed(), title=TITLE)
    axes = figure.axes[0]
    (right,) = axes.child_axes
    figure.draw_without_rendering()
    np.testing.assert_allclose(right.get_ylim(), 3.0 * np.array(axes.get_ylim()))


def test_a_layout_is_a_line_where_lazy_pruning_is_timed_in_it_and_flat_where_it_is_not():
    figure = tpot_against_period(timed(), title=TITLE)
    flat, swept = [], []
    for axes in figure.axes[:2]:
        lines = [line for line in axes.get_lines() if len(line.get_ydata()) > 1]
        level = [line for line in lines if len(set(line.get_ydata())) == 1]
        flat.append({float(line.get_ydata()[0]) for line in level})
        swept.append([list(line.get_ydata()) for line in lines if line not in level])
    assert flat == [{1.0}, {1.0, 0.604}]
    assert [0.604, 0.55] in swept[1]
    assert [0.604, 0.55] not in swept[0]
    said = words(figure)
    assert "lazy, soft ring layout, post-prune length capped" in said
    assert "strict, ring layout" in said
    assert "recompute: 6.2 times strict" in said


def test_bars_of_forward_and_update_add_up():
    left = prune_overhead(probes(), title=TITLE).axes[0]
    tops = {(round(bar.get_x() + bar.get_width() / 2), bar.get_y()): bar for bar in left.patches}
    assert tops[0, 4.0].get_height() == 2.0
    assert tops[1, 4.0].get_height() == 0.125
    assert [text.get_text() for text in left.get_xticklabels()] == ["R1", "R16"]


# Sinks


def test_only_strict_streaming_with_several_numbers_of_sinks_is_drawn():
    figure = ppl_against_sinks(sink_sweep(), title=TITLE)
    ticks = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert ticks == ["0", "4", "64"]
    said = words(figure)
    assert "S4 at cap 256 (invalid)" in said
    assert "peak length" not in said


# Loss around prunes


def test_lazy_arms_at_the_largest_cap_come_first():
    order = panel_order(spikes())
    first = list(order[["policy", "cap", "cap_on", "period"]].itertuples(index=False, name=None))
    assert first[:6] == [
        ("lazy", 512, cap_on, period)
        for cap_on in ("post_prune", "peak")
        for period in (16, 64, 128)
    ]
    assert [policy for policy, cap, *_ in first[6:8]] == ["h2o", "tova"]
    assert first[8] == ("lazy", 512, "post_prune", 16)
    assert order["sinks"].tolist()[:9] == [4] * 8 + [32]
    assert {cap for _, cap, *_ in first[9:]} == {256}
    assert len(first) == 15


def test_further_arms_are_counted_and_peaks_above_chance_are_named():
    figure = loss_around_prunes(curves(spikes()), spikes(), title=TITLE)
    assert len(figure.axes) == MOST_PANELS
    shown = panel_order(spikes()).head(MOST_PANELS)
    above = [axes.get_title(loc="right") == "above chance" for axes in figure.axes]
    assert above == shown["excess"].tolist()
    assert "6 further arms" in words(figure)


def test_a_trace_smooths_over_the_tokens_before_and_marks_the_prunes():
    rows = trace()
    figure = nll_trace({"lazy R16": rows}, title=TITLE)
    lines = figure.axes[0].get_lines()
    marks = [line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1]
    assert marks == (rows.loc[rows["pruned"], "position"] + 0.5).tolist()
    x, y = max((line.get_data() for line in lines), key=lambda data: len(data[0]))
    smooth = pd.Series(y, index=x)
    assert smooth.isna().sum() == SMOOTH - 1
    assert smooth[599] == pytest.approx(0)
    assert smooth[600] == pytest.approx(0.1 / SMOOTH)
    assert smooth[600 + SMOOTH - 1] == pytest.approx(0.1)


def test_a_trace_needs_an_arm():
    with pytest.raises(ValueError, match="at least one arm"):
        nll_trace({}, title=TITLE)


# Memory


def test_memory_bars_add_up_to_the_peak_and_count_logits_once():
    figure = memory_split_bars(memory(), title=TITLE)
    whole, beside = figure.axes
    names = [text.get_text() for text in whole.get_yticklabels()]
    assert names == ["start recent", "start recent, ring", "start recent, staging buffer", "h2o"]
    assert ends(whole, measured=True) == [23, 23, 25, 24]
    assert ends(whole, measured=False) == [21, 21, 23, 22]
    assert ends(beside, measured=True) == [7, 7, 9, 8]
    assert "static cache (refused)" in words(figure)


def test_an_arm_without_a_budget_does_not_squash_the_others():
    full = memory().query("policy == 'h2o'").assign(policy="full")
    full.loc[full["part"] == "kv", "bytes"] = 400 * MIB
    figure = memory_split_bars(pd.concat([memory(), full]), title=TITLE)
    beside = figure.axes[1]
    assert 9 < beside.get_xlim()[1] < 15
    assert "404 \N{RIGHTWARDS ARROW}" in words(figure)


def ends(axes, measured):
    """Where the bar of each arm ends, MiB; those of what is measured are thicker."""
    found = {}
    for bar in axes.patches:
        if (bar.get_height() > 0.3) == measured:
            place = round(bar.get_y() + bar.get_height() / 2)
            found[place] = max(found.get(place, 0), bar.get_x() + bar.get_width())
    return [found[place] for place in sorted(found)]
