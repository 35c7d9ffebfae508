"""The Pareto figure: who is on the front of which budget, and labels that can be read."""

import pandas as pd
import pytest
from matplotlib.text import Text
from tests.frames import TITLE, arm, labels, study, words

from kvpareto.report.figures.pareto import pareto_figure


def bold(figure):
    return {text.get_text() for text in labels(figure) if text.get_weight() == "bold"}


@pytest.mark.parametrize("lazy_arms", [0, 12, 36])
def test_every_arm_within_the_budget_is_labelled_or_counted_as_unlabelled(lazy_arms):
    arms = study(lazy_arms)
    figure = pareto_figure(arms, title=TITLE)
    drawn = int(((arms["status"] == "ok") & arms["within"]).sum())
    without = drawn - len(labels(figure))
    assert (f"labels of {without} arms" in words(figure)) == (without > 0)
    assert without <= drawn // 4
    assert TITLE in words(figure)


@pytest.mark.parametrize("lazy_arms", [2, 12, 36])
def test_labels_cover_neither_each_other_nor_the_frame(lazy_arms):
    figure = pareto_figure(study(lazy_arms), title=TITLE)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    # The extent of an annotation includes its leader; only the text's own box counts here.
    own = [Text.get_window_extent(text, renderer) for text in labels(figure)]
    frame = figure.axes[0].get_window_extent(renderer)
    for index, box in enumerate(own):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.shrunk(0.98, 0.98).overlaps(other) for other in own[:index])


def test_legends_cover_neither_each_other_nor_the_plot():
    figure = pareto_figure(study(36), title=TITLE)
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    policies, reading = (legend.get_window_extent(renderer) for legend in figure.legends)
    assert not policies.overlaps(reading)
    frame = figure.axes[0].get_window_extent(renderer)
    for box in (policies, reading):
        assert frame.x1 < box.x0
        assert box.x1 <= figure.bbox.x1


def test_the_front_and_the_controls_are_always_labelled():
    figure = pareto_figure(study(36), title=TITLE)
    assert {"recompute", "random"} <= {text.get_text() for text in labels(figure)}
    assert "recompute" in bold(figure)


def test_labels_hold_what_sets_arms_apart_and_the_legend_the_rest():
    figure = pareto_figure(study(6).assign(within=True), title=TITLE)
    texts = {text.get_text() for text in labels(figure)}
    assert {"R4", "R128", "start recent", "of tomorrow"} <= texts
    assert "lazy · S4 overflow" in words(figure)


def test_arms_of_one_policy_that_cap_different_lengths_are_told_apart():
    rows = [arm("recent", "", ppl=1), arm("recent", "", cap_on="peak", ppl=2, ratio=0.9)]
    figure = pareto_figure(pd.DataFrame(rows), title=TITLE)
    assert {text.get_text() for text in labels(figure)} == {"recent", "recent peak"}


def test_failed_arms_are_named_and_untimed_ones_counted():
    rows = study(2)
    rows.loc[rows["policy"] == "of_tomorrow", "status"] = "not timed"
    said = words(pareto_figure(rows, title=TITLE))
    assert "Not shown: h2o (timeout)." in said
    assert "1 arm without a time" in said
    assert "of tomorrow" not in said


def test_arms_over_the_budget_keep_nobody_off_the_front_and_have_no_label():
    rows = pd.DataFrame(
        [arm("start_recent", "S4"), arm("lazy", "S4 R4 overflow", ppl=0.5, ratio=0.7)]
    )
    assert bold(pareto_figure(rows, title=TITLE)) == {"lazy"}
    over = rows.assign(within=rows["policy"] != "lazy")
    figure = pareto_figure(over, title=TITLE)
    assert bold(figure) == {"start recent"}
    assert {text.get_text() for text in labels(figure)} == {"start recent"}
    assert "pale: over the budget" in words(figure)


def test_a_faster_cache_layout_is_a_point_of_its_own():
    strict = arm("start_recent", "S4")
    ring = arm("start_recent", "S4", ratio=0.5, layout="ring")
    lazy = arm("lazy", "S4 R16 overflow", ppl=2, ratio=0.6)
    figure = pareto_figure(pd.DataFrame([strict, ring, lazy]), title=TITLE)
    assert bold(figure) == {"start recent · ring"}
    assert "one arm, several cache layouts" in words(figure)


def test_far_off_arms_do_not_squash_the_others():
    axes = pareto_figure(study(12), title=TITLE).axes[0]
    to_axes = axes.transData + axes.transAxes.inverted()
    near, far = (to_axes.transform((2.7, ppl))[1] for ppl in (0.0, 5.0))
    assert far - near > 0.4
    assert "squeezed" in axes.get_ylabel()
    assert 0 < to_axes.transform((6.0, 900.0))[1] < 1
    assert "squeezed" in axes.get_xlabel()
    assert 0 < to_axes.transform((39.0, 0.0))[0] < 1
