"""Recommended settings: computed from the tables by their rule, and on one scale of time."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpareto.claim_settings import Recommendation
from kvpareto.claims.recommend import COLUMNS, CONTROLS, recommended

RULE = Recommendation(texts=["t"], ppl_delta_pct=5.0)


def arm(policy, ppl, ratio, **more):
    """An arm's eviction and timing rows in one."""
    return {
        "model": "m", "text": "t", "policy": policy, "setting": f"{policy}-{ppl}-{ratio}",
        "cap": 512, "cap_on": "post_prune", "ppl_delta_pct": ppl, "status": "ok", "why": "",
        "layout": "compact", "tpot_ratio": ratio, "tpot_ratio_lo": ratio, "tpot_ratio_hi": ratio,
        "yardstick_ms": 2.0, "machine": "a machine", "tpot_ms_p50": 99.0, "timed_on": "t",
        "timing_status": "ok",
    } | more  # fmt: skip


QUALITY = ["model", "text", "policy", "setting", "cap", "cap_on", "ppl_delta_pct", "status", "why"]


def tables(*arms):
    frame = pd.DataFrame(arms)
    eviction = frame[QUALITY].drop_duplicates(ignore_index=True).astype({"cap": "Int64"})
    times = frame.drop(columns=["cap", "cap_on", "ppl_delta_pct", "status"])
    return eviction, times.rename(columns={"timing_status": "status"})


def of(*arms, rule=RULE):
    return recommended(*tables(*arms), {"use": rule})


SLOW = arm("start_recent", 1.0, 1.0)
FAST = arm("lazy", 4.0, 0.7)


def test_it_is_the_fastest_arm_within_the_limit():
    (row,) = of(SLOW, FAST, arm("slack", 5.5, 0.5)).itertuples()
    assert (row.use, row.policy, row.setting) == ("use", "lazy", FAST["setting"])
    assert row.ppl_delta_pct == 4.0
    assert row.rule == (
        "lowest time per token at the largest cap with perplexity within 5% of recompute"
    )
    assert (row.model, row.text, row.cap, row.layout, row.status) == (
        "m", "t", 512, "compact", "ok",
    )  # fmt: skip


figures = st.tuples(st.floats(-5, 15), st.floats(0.1, 2))


@settings(max_examples=40, deadline=None)
@given(st.lists(figures, min_size=1, max_size=8, unique=True))
def test_no_arm_within_the_limit_is_faster(pairs):
    (row,) = of(*(arm("lazy", ppl, ratio) for ppl, ratio in pairs)).itertuples()
    good = [ratio for ppl, ratio in pairs if ppl <= 5.0]
    if good:
        assert row.status == "ok"
        assert row.ppl_delta_pct <= 5.0
        assert row.tpot_ratio == min(good)
    else:
        assert row.status == f"none of {len(pairs)} arms within 5%"
        assert pd.isna(row.policy)


@pytest.mark.parametrize("policy", CONTROLS)
def test_controls_are_never_recommended(policy):
    assert of(FAST, arm(policy, 0.0, 0.1))["policy"].tolist() == ["lazy"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "invalid"},
        {"timing_status": "oom"},
        {"cap_on": "none"},
        {"tpot_ratio": float("nan")},
        {"ppl_delta_pct": float("nan")},
        {"cap": 256},
        {"text": "u"},
    ],
)
def test_arms_over_budget_unmeasured_or_of_another_place_are_not_recommended(change):
    better = arm("slack", 0.0, 0.1) | change
    assert of(SLOW, FAST, better)["policy"].tolist() == ["lazy"]


def test_any_layout_may_be_recommended():
    ring = arm("start_recent", 1.0, 0.5, layout="ring", setting=SLOW["setting"])
    (row,) = of(SLOW, ring, FAST).itertuples()
    assert (row.policy, row.layout) == ("start_recent", "ring")


def test_another_cap_may_be_asked_for():
    small = arm("slack", 0.0, 0.9, cap=256)
    full = arm("full", 0.0, 1.5, cap=None, cap_on=None, yardstick_ms=100.0)
    rule = RULE.model_copy(update={"cap": 256})
    (row,) = of(SLOW, FAST, small, full, rule=rule).itertuples()
    assert (row.policy, row.cap) == ("slack", 256)
    # An arm without a cap was timed beside the yardstick of the largest.
    assert row.tpot_ms_p50 == pytest.approx(0.9 * 2.0)
    assert "at cap 256" in row.rule


def test_the_time_is_the_ratio_on_the_scale_of_all_jobs_at_the_cap():
    """The yardstick's median is over compact arms at the cap and those without one."""
    arms = [
        SLOW | {"yardstick_ms": 3.0},
        FAST | {"yardstick_ms": 1.0},
        arm("slack", 9.0, 0.8, yardstick_ms=2.5),
        arm("full", 0.0, 1.5, cap=None, cap_on=None, yardstick_ms=4.0),
        arm("lazy", 9.0, 0.9, cap=256, yardstick_ms=77.0),
        FAST | {"layout": "soft_ring", "tpot_ratio": 0.9, "yardstick_ms": 88.0},
    ]
    (row,) = of(*arms).itertuples()
    assert row.setting == FAST["setting"]
    assert row.tpot_ms_p50 == pytest.approx(0.7 * 2.75)


def test_there_is_a_row_for_every_use_model_and_text():
    arms = [arm("lazy", 1.0, 0.9, model=model, text=text) for model in "mn" for text in "tuv"]
    uses = {
        "long": Recommendation(texts=["u", "t"], ppl_delta_pct=5.0),
        "short": Recommendation(texts=["v"], ppl_delta_pct=0.5),
        "other": Recommendation(texts=["w"], ppl_delta_pct=3.0),
    }
    frame = recommended(*tables(*arms), uses)
    assert tuple(frame.columns) == COLUMNS
    places = frame[["use", "model", "text", "status"]].fillna("").to_numpy().tolist()
    none = "none of 1 arms within 0.5%"
    assert places == [
        ["long", "m", "t", "ok"], ["long", "m", "u", "ok"], ["long", "n", "t", "ok"],
        ["long", "n", "u", "ok"], ["short", "m", "v", none], ["short", "n", "v", none],
        ["other", "", "", "no arm on w"],
    ]  # fmt: skip


def test_a_text_that_was_not_timed_has_no_candidates():
    eviction, timing = tables(FAST)
    (row,) = recommended(eviction, timing.iloc[:0], {"use": RULE}).itertuples()
    assert row.status == "none of 0 arms within 5%"
