"""Figures: they render whatever a study gives, say what they leave out, and repeat to the byte."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from kvpareto.claims.pareto import front
from kvpareto.records import digest
from kvpareto.report.figures import pareto_figure, ppl_against_attended, ppl_against_period
from kvpareto.report.labels import Label, place_labels
from kvpareto.report.scale import Scale
from kvpareto.report.style import policy_styles, save_svg

TITLE = "ref-neox on code, cap 512"


def arm(policy, parts, tpot_ms, ppl, cap_on="post_prune", status="ok", cap=512, **more):
    """A row of the merged frame; `parts` is the readable part of its setting id."""
    head = [f"cap{cap}", cap_on.replace("_", "")] if cap else []
    setting = "-".join([*head, *parts.split(), digest([policy, parts, cap_on, cap])])
    reach = 0.3 + 0.05 * abs(ppl)
    return {
        "model": "ref-neox",
        "text": "code",
        "policy": policy,
        "setting": setting,
        "cap": cap,
        "cap_on": cap_on if cap else None,
        "tpot_ms": tpot_ms,
        "tpot_ms_lo": tpot_ms * 0.99,
        "tpot_ms_hi": tpot_ms * 1.02,
        "ppl_delta_pct": ppl,
        "ppl_delta_lo": ppl - reach,
        "ppl_delta_hi": ppl + reach,
        "status": status,
    } | more


def study(lazy_arms):
    """References, controls, outliers, a failed arm, an unknown policy, and a grid of lazy arms."""
    rows = [
        arm("recompute", "", 41.0, 0.0, "peak", ppl_delta_lo=0, ppl_delta_hi=0),
        arm("start_recent", "S4", 3.0, 1.0),
        arm("full", "", 6.0, 900.0, cap=None),
        arm("random", "S4 R16 seed0", 2.4, 60.0, tpot_ms_lo=np.nan, tpot_ms_hi=np.nan),
        arm("recent", "R1", 2.9, 340.0, ppl_delta_lo=np.nan, ppl_delta_hi=np.nan),
        arm("of_tomorrow", "S4 width3", 2.7, 1.4),
        arm("h2o", "S4 R16", np.nan, np.nan, status="timeout"),
    ]
    for index in range(lazy_arms):
        period, sinks = 2 ** (2 + index % 6), (4, 16, 32)[index // 6 % 3]
        cap_on = ("post_prune", "peak")[index // 18 % 2]
        rows.append(
            arm(
                "lazy",
                f"S{sinks} R{period} overflow",
                2.7 - 0.08 * (index % 6) + 0.005 * index,
                1 + 0.05 * period - 0.01 * sinks,
                cap_on,
            )
        )
    return pd.DataFrame(rows)


def sweep(cliff=0.0):
    """Lazy and strict arms over caps, cap_on, triggers and periods, with joined settings."""
    rows = []
    for cap in (256, 512):
        for cap_on in ("post_prune", "peak"):
            strict = arm("start_recent", "S4", 3.0, 0.9, cap_on, cap=cap)
            rows.append(strict | joined(None, 4, None, cap + 1))
            for trigger in ("overflow", "clock"):
                for period in (4, 16, 64, 128):
                    peak = cap + (period if cap_on == "post_prune" else 0)
                    ppl = 1 + period / 64 + cliff * (peak > 512)
                    row = arm("lazy", f"S4 R{period} {trigger}", 2.5, ppl, cap_on, cap=cap)
                    rows.append(row | joined(period, 4, trigger, peak))
    rows[3]["status"], rows[3]["ppl_delta_pct"] = "oom", np.nan
    rows.append(arm("random", "S4 R16", 2.4, 60.0) | joined(16, 4, None, 528))
    rows.append(arm("full", "", 6.0, 900.0, cap=None) | joined(None, 0, None, 4096))
    frame = pd.DataFrame(rows)
    # As the aggregated table has them: counts that may be missing.
    return frame.astype({"cap": "Int64", "period": "Int64"})


def joined(period, sinks, trigger, peak):
    return {"period": period, "sinks": sinks, "trigger": trigger, "peak_attended_len": peak}


def words(figure):
    """All text of a figure."""
    return "\n".join(
        text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))
    )


def labels(figure):
    return [text for text in figure.findobj(Annotation) if text.get_text()]


FIGURES = {
    "pareto": lambda: pareto_figure(study(12), title=TITLE),
    "period": lambda: ppl_against_period(sweep(), title=TITLE),
    "attended": lambda: ppl_against_attended(sweep(400), trained_length=512, title=TITLE),
}


@pytest.mark.parametrize("name", FIGURES)
def test_two_builds_are_one_sequence_of_bytes(name, tmp_path):
    for copy in ("one", "two"):
        save_svg(FIGURES[name](), tmp_path / f"{copy}.svg")
    first = (tmp_path / "one.svg").read_bytes()
    assert first == (tmp_path / "two.svg").read_bytes()
    assert b"<dc:date>" not in first
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", FIGURES)
def test_text_in_the_file_needs_no_font_of_the_reader(name, tmp_path):
    save_svg(FIGURES[name](), tmp_path / "figure.svg")
    assert "<text" not in (tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("name", FIGURES)
def test_pyplot_keeps_no_figure(name):
    FIGURES[name]()
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("lazy_arms", [0, 12, 36])
def test_every_arm_is_labelled_or_counted_as_unlabelled(lazy_arms):
    arms = study(lazy_arms)
    figure = pareto_figure(arms, title=TITLE)
    drawn = int((arms["status"] == "ok").sum())
    said = words(figure)
    without = drawn - len(labels(figure))
    assert (f"labels of {without} arms" in said) == (without > 0)
    assert without <= drawn // 4
    assert TITLE in said


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


def test_the_front_and_the_controls_are_always_labelled():
    figure = pareto_figure(study(36), title=TITLE)
    texts = [text.get_text() for text in labels(figure)]
    assert {"recompute", "full*", "random"} <= set(texts)
    assert any(text.get_weight() == "bold" for text in labels(figure))


def test_labels_hold_what_sets_arms_apart_and_the_legend_the_rest():
    figure = pareto_figure(study(6), title=TITLE)
    texts = {text.get_text() for text in labels(figure)}
    assert {"R4", "R128", "start recent", "of tomorrow"} <= texts
    assert "lazy · S4 overflow" in words(figure)


def test_failed_arms_are_named_with_their_status():
    assert "Not shown: h2o (timeout)." in words(pareto_figure(study(2), title=TITLE))


@pytest.mark.parametrize(
    "build",
    [
        lambda: pareto_figure(study(2).query("status != 'ok'"), title=TITLE),
        lambda: ppl_against_period(sweep().assign(status="timeout"), title=TITLE),
        lambda: ppl_against_period(sweep().query("policy == 'full'"), title=TITLE),
        lambda: ppl_against_attended(sweep().assign(status="oom"), trained_length=512, title=TITLE),
    ],
)
def test_a_study_without_a_single_result_still_gives_a_figure(build):
    figure = build()
    assert isinstance(figure, Figure)
    assert "no arm has a result" in words(figure)


def test_arms_over_the_budget_keep_nobody_off_the_front():
    arms = pd.DataFrame(
        [
            arm("start_recent", "S4", 3.0, 1.0),
            arm("lazy", "S4 R4 overflow", 2.0, 0.5, "none"),
            arm("full", "", 1.0, 0.1, cap=None),
        ]
    )
    bold = [
        text.get_text()
        for text in labels(pareto_figure(arms, title=TITLE))
        if text.get_weight() == "bold"
    ]
    assert bold == ["start recent"]
    assert front(arms["tpot_ms"], arms["ppl_delta_pct"]).tolist() == [False, False, True]


def test_far_off_arms_do_not_squash_the_others():
    axes = pareto_figure(study(12), title=TITLE).axes[0]
    to_axes = axes.transData + axes.transAxes.inverted()
    near, far = (to_axes.transform((2.7, ppl))[1] for ppl in (0.0, 5.0))
    assert far - near > 0.4
    assert "squeezed" in axes.get_ylabel()
    assert 0 < to_axes.transform((6.0, 900.0))[1] < 1
    assert "squeezed" in axes.get_xlabel()
    assert 0 < to_axes.transform((41.0, 0.0))[0] < 1


def test_a_frame_without_its_columns_is_refused_by_name():
    with pytest.raises(ValueError, match="lacks the columns cap_on, ppl_delta_hi"):
        pareto_figure(study(2).drop(columns=["cap_on", "ppl_delta_hi"]), title=TITLE)


def test_rows_of_two_models_are_refused():
    rows = sweep()
    rows.loc[0, "model"] = "ref-llama"
    with pytest.raises(ValueError, match="one model, and the rows are of ref-llama, ref-neox"):
        ppl_against_period(rows, title=TITLE)


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


def test_policies_have_styles_that_differ_and_stay():
    known = ["start_recent", "lazy", "slack", "max_drop", "overlap", "refresh", "bridge", "recent"]
    known += ["adaptive_slack", "adaptive_entropy", "h2o", "scissorhands", "snapkv", "tova"]
    known += ["pyramidkv", "knorm", "keydiff", "random", "full", "recompute"]
    styles = policy_styles([*known, "zeta", "alpha"])
    assert len({(style.color, style.marker, style.hollow) for style in styles.values()}) == 22
    assert len({str(styles[name].marker) for name in known[:17]}) == 17
    assert policy_styles(["lazy"])["lazy"] == styles["lazy"]
    assert policy_styles(["alpha", "zeta"])["alpha"] == policy_styles(["zeta", "alpha"])["alpha"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 1e5), min_size=1, max_size=30),
    st.booleans(),
    st.floats(0, 0.5),
)
def test_a_scale_keeps_every_point_in_order_inside_and_invertible(values, logarithmic, reach):
    points = np.sort(values)
    scale = Scale.around(
        points, points * (1 - reach), points * (1 + reach), logarithmic=logarithmic
    )
    assert scale.low < points[0]
    assert points[-1] < scale.high
    assert (np.diff(scale.forward(points)) >= 0).all()
    np.testing.assert_allclose(scale.inverse(scale.forward(points)), points, rtol=1e-6)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())


def test_a_scale_without_far_off_points_is_not_squeezed():
    none = [np.nan] * 4
    assert not Scale.around([0, 1, 2, 4], none, none, logarithmic=False).squeezed
    assert Scale.around([0, 1, 2, 400], none, none, logarithmic=False).squeezed
    assert not Scale.around([0, 0, 0, 0], none, none, logarithmic=False).squeezed


def test_a_label_without_a_place_is_handed_back():
    figure = Figure(figsize=(1, 1))
    axes = figure.add_axes((0, 0, 1, 1))
    too_long = Label(0.5, 0.5, "much too long for so small a picture", "black")
    assert place_labels(axes, [too_long], np.array([[0.5, 0.5]]), np.empty((0, 4))) == [too_long]
    assert labels(figure) == []
