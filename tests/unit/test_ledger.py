"""The ledger: which arms a test means, what each metric says of them, and what follows."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kvpareto.claim_settings import Claim, Margins, PairTest, ProbeTest, Recommendation, Test
from kvpareto.claims.bootstrap import Interval
from kvpareto.claims.equivalence import verdict
from kvpareto.claims.evidence import METRICS, evidence, margin_of
from kvpareto.claims.judged import NOT_TESTED
from kvpareto.claims.ledger import CLAIM_COLUMNS, TEST_COLUMNS, ledger, overall
from kvpareto.claims.study import Study, references, select
from kvpareto.claims.timescale import noise_floor_pct
from kvpareto.eviction_settings import StatisticsSettings

CONFIG = Path(__file__).parents[2] / "config" / "claims.yaml"
MACHINE = "a machine"
PARAMETERS = ("sinks", "period", "trigger", "slack")
POSITIONS = np.arange(512, 512 + 256)


def arm(policy, cap=512, text="t", cap_on="post_prune", status="ok", **parameters):
    """A row of the eviction table with its parameters."""
    parts = [f"cap{cap}-{cap_on}", *(f"{name}{value}" for name, value in parameters.items())]
    return {
        "model": "m", "text": text, "policy": policy, "setting": "-".join(parts), "cap": cap,
        "cap_on": cap_on, "alias_of": "", "ppl_delta_pct": 1.0, "status": status,
        "why": "it broke" if status != "ok" else "", **parameters,
    }  # fmt: skip


STRICT = arm("start_recent", sinks=4)
LAZY16 = arm("lazy", sinks=4, period=16, trigger="overflow")
LAZY64 = arm("lazy", sinks=4, period=64, trigger="overflow")
RECOMPUTE = arm("recompute", cap_on="peak")


def path(row):
    return "/".join(row[name] for name in ("model", "text", "policy", "setting"))


def who(row):
    return {name: row[name] for name in ("model", "text", "policy", "setting")}


def timed(row, ratio, width=0.01, layout="compact", timed_on=None, yardstick_ms=2.0):
    return who(row) | {
        "layout": layout, "tpot_ratio": ratio, "tpot_ratio_lo": ratio * (1 - width),
        "tpot_ratio_hi": ratio * (1 + width), "machine": MACHINE, "status": "ok", "why": "",
        "timed_on": timed_on or row["text"], "yardstick_ms": yardstick_ms,
    }  # fmt: skip


def tokens(shift=0.0, noise=0.0, period=None, documents=3):
    """A token table with losses of a common random text, moved by `shift` nats."""
    shape = (documents, len(POSITIONS))
    nll = np.random.default_rng(0).gamma(2.0, 1.5, size=shape) + shift
    nll += noise * np.random.default_rng(1).normal(size=shape)
    pruned = POSITIONS % period == 0 if period else np.zeros(len(POSITIONS), dtype=bool)
    return pd.DataFrame(
        {
            "document": np.repeat(np.arange(documents), len(POSITIONS)),
            "position": np.tile(POSITIONS, documents),
            "nll_nats": nll.ravel(),
            "attended": 513,
            "length_after": np.tile(np.where(pruned, 512, 513), documents),
            "pruned": np.tile(pruned, documents),
        }
    )


def study(*arms, tables=None, losses=None, noise_floor=0.0, recommend=None):
    """A study of some arms; tables not given are empty."""
    frames = {name: pd.DataFrame(rows) for name, rows in (tables or {}).items()}
    eviction = pd.DataFrame(arms).astype({"cap": "Int64"})
    found = {path(row): frame for row, frame in losses or []}
    return Study(
        eviction, **frames, tokens=found.__getitem__, answers=found.__getitem__,
        statistics=StatisticsSettings(resamples=300), recommend=recommend or {},
        noise_floor_pct=noise_floor,
    )  # fmt: skip


def parsed(**test):
    return TypeAdapter(Test).validate_python(test)


def pair(metric="ppl", arm=None, reference=None, expect="lower", **more):
    arm = arm or {"policy": "lazy"}
    return parsed(metric=metric, arm=arm, reference=reference, expect=expect, **more)


def claim(*tests, **more):
    return Claim(source="a log", says="It is so.", tests=list(tests), **more)


STRICT_BESIDE = {"policy": "start_recent"}


def only(test, study):
    (row,) = evidence(test, study)
    return row


# Which rows a selector means.


def rows(*arms):
    return pd.DataFrame(arms).astype({"cap": "Int64"})


def chosen(frame):
    return [f"{row.policy}-{row.setting}" for row in frame.itertuples()]


def test_a_selector_takes_rows_with_all_its_values_and_lists_allow_each():
    frame = rows(STRICT, LAZY16, LAZY64)
    assert len(select(frame, {"policy": "lazy"})) == 2
    assert len(select(frame, {"policy": "lazy", "period": 16})) == 1
    assert len(select(frame, {"policy": "lazy", "period": [16, 64, 128]})) == 2
    assert len(select(frame, {"policy": ["lazy", "start_recent"], "sinks": 4})) == 3
    assert select(frame, {"policy": "lazy", "period": 32}).empty
    assert select(frame, {"policy": "lazy", "slack": 16}).empty


def test_null_selects_what_has_no_such_parameter():
    frame = rows(STRICT, LAZY16)
    assert select(frame, {"period": None})["policy"].tolist() == ["start_recent"]
    assert len(select(frame, {"period": [None, 16]})) == 2


def test_arms_run_compact_unless_the_selector_says_otherwise():
    frame = pd.DataFrame([timed(LAZY16, 0.8, layout=name) for name in ("compact", "soft_ring")])
    assert select(frame, {"policy": "lazy"})["layout"].tolist() == ["compact"]
    ring = select(frame, {"policy": "lazy", "layout": "soft_ring"})
    assert ring["layout"].tolist() == ["soft_ring"]


def test_a_reference_has_its_arms_model_text_cap_meaning_and_sinks():
    others = [
        arm("start_recent", sinks=32),
        arm("start_recent", cap=256, sinks=4),
        arm("start_recent", cap_on="peak", sinks=4),
        arm("start_recent", text="u", sinks=4),
        STRICT | {"model": "n"},
    ]
    frame = rows(LAZY16, STRICT, *others)
    found = references(frame, frame.iloc[0], {"policy": "start_recent"})
    assert found.index.tolist() == [1]
    named = references(frame, frame.iloc[0], {"policy": "start_recent", "cap": 256})
    assert named["cap"].tolist() == [256]


def test_same_means_the_arms_own_value():
    slack = [arm("slack", sinks=4, period=period, slack=16) for period in (16, 64)]
    frame = rows(LAZY16, LAZY64, *slack)
    for index in (2, 3):
        found = references(frame, frame.iloc[index], {"policy": "lazy", "period": "same"})
        assert found["period"].tolist() == [frame["period"][index]]


def test_an_arm_is_never_its_own_reference_and_what_has_no_cap_suits_every_cap():
    frame = rows(LAZY16, LAZY64, arm("full", cap=None, cap_on=None))
    assert len(references(frame, frame.iloc[0], {"policy": "lazy"})) == 1
    assert len(references(frame, frame.iloc[0], {"policy": "full"})) == 1


@given(st.permutations([STRICT, LAZY16, LAZY64, RECOMPUTE]))
def test_the_order_of_rows_changes_no_selection(arms):
    frame = rows(*arms)
    assert set(chosen(select(frame, {"policy": "lazy"}))) == {
        f"lazy-{row['setting']}" for row in (LAZY16, LAZY64)
    }


# Metrics.


def test_perplexity_is_compared_on_the_tokens_of_both():
    losses = [(LAZY16, tokens(0.02)), (STRICT, tokens().query("position % 2 == 0"))]
    row = only(pair(reference=STRICT_BESIDE, expect="higher"), study(LAZY16, STRICT, losses=losses))
    assert row["estimate"] == pytest.approx(100 * np.expm1(0.02))
    assert (row["verdict"], row["margin"], row["machine"]) == ("reproduced", 0.5, "")
    assert row["arm"] == f"lazy/{LAZY16['setting']}"
    assert row["reference"] == f"start_recent/{STRICT['setting']}"


def test_perplexity_of_arms_that_share_no_token_is_undecided():
    losses = [(LAZY16, tokens()), (STRICT, tokens().iloc[:0])]
    row = only(pair(reference=STRICT_BESIDE), study(LAZY16, STRICT, losses=losses))
    assert (row["verdict"], row["why"]) == ("undecided", "no token was scored by both arms")


def test_times_at_one_cap_are_ratios_to_one_yardstick():
    table = [timed(LAZY16, 0.72), timed(STRICT, 0.9)]
    row = only(
        pair("tpot", reference=STRICT_BESIDE), study(LAZY16, STRICT, tables={"timing": table})
    )
    assert row["estimate"] == pytest.approx(-20)
    half = np.log1p(row["hi"] / 100) - np.log(0.8)
    assert half == pytest.approx(np.hypot(np.log(1.01), -np.log(0.99)), rel=1e-3)
    assert (row["verdict"], row["margin"], row["machine"]) == ("reproduced", 3.0, MACHINE)


def sweep(cap, ratio, levels):
    """Strict and six lazy arms at a cap, with the yardstick's time beside each."""
    arms = [arm("start_recent", cap=cap, sinks=4)]
    arms += [arm("lazy", cap=cap, sinks=4, period=period) for period in range(1, 7)]
    return arms, [
        timed(row, ratio, yardstick_ms=level) for row, level in zip(arms, levels, strict=True)
    ]


@pytest.mark.parametrize(("drift", "expected"), [(0.001, "reproduced"), (0.2, "undecided")])
def test_times_at_two_caps_need_the_yardsticks_level_at_both(drift, expected):
    """At 256 entries the yardstick takes 1.8 ms, at 512 it takes 2: a tenth less."""
    spread = 1 + drift * np.linspace(-1, 1, 7)
    small, small_times = sweep(256, 1.0, 1.8 * spread)
    large, large_times = sweep(512, 1.0, 2.0 * spread)
    here = study(*small, *large, tables={"timing": small_times + large_times})
    test = pair("tpot", {"policy": "start_recent", "cap": 256}, STRICT_BESIDE | {"cap": 512})
    row = only(test, here)
    assert row["estimate"] == pytest.approx(-10)
    assert row["verdict"] == expected


def test_a_margin_of_time_is_never_below_the_noise_floor():
    here = study(STRICT, noise_floor=7.0)
    test = pair("tpot", reference=STRICT_BESIDE, margin=1.0)
    assert margin_of(test, here) == 7.0
    assert margin_of(test, study(STRICT)) == 1.0
    assert margin_of(pair(reference=STRICT_BESIDE), here) == 0.5


def test_texts_that_borrow_times_are_no_evidence_of_their_own():
    arms = [LAZY16, STRICT, LAZY16 | {"text": "u"}, STRICT | {"text": "u"}]
    table = [timed(row, 0.9, timed_on="t") for row in arms]
    found = evidence(pair("tpot", reference=STRICT_BESIDE), study(*arms, tables={"timing": table}))
    assert [row["text"] for row in found] == ["t"]


def test_layouts_of_one_arm_can_be_compared():
    table = [timed(LAZY16, 0.9), timed(LAZY16, 0.8, layout="soft_ring")]
    test = pair("tpot", {"policy": "lazy", "layout": "soft_ring"}, {"policy": "lazy"}, "not_lower")
    row = only(test, study(LAZY16, tables={"timing": table}))
    assert row["arm"].endswith("(soft_ring)")
    assert row["verdict"] == "contradicted"


def spike(row, peak, lo, hi, status="ok"):
    return who(row) | {
        "peak_nats": peak, "peak_lo": lo, "peak_hi": hi, "peak_null_lo": 0.1, "peak_null_hi": 0.3,
        "area_nats": 2.0, "area_lo": 1.9, "area_hi": 2.1, "area_null_lo": -1, "area_null_hi": 3.0,
        "status": status, "why": "too few" if status != "ok" else "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("peak", "expected"), [(0.5, "reproduced"), (0.2, "undecided"), (0.05, "contradicted")]
)
def test_a_spike_without_a_reference_is_held_against_chance(peak, expected):
    here = study(LAZY16, tables={"spikes": [spike(LAZY16, peak, peak - 0.1, peak + 0.1)]})
    row = only(pair("spike_peak", expect="higher"), here)
    assert (row["verdict"], row["margin"], row["reference"]) == (expected, 0.0, "chance")
    assert [row["lo"], row["hi"]] == pytest.approx([peak - 0.3, peak - 0.1])


def test_spikes_of_two_arms_are_compared_in_percent():
    table = [spike(LAZY16, 0.505, 0.5, 0.51), spike(LAZY64, 0.5, 0.495, 0.505)]
    here = study(LAZY16, LAZY64, tables={"spikes": table})
    named = {"policy": "lazy", "period": 16}, {"policy": "lazy", "period": 64}
    peak = only(pair("spike_peak", *named, expect="equal"), here)
    assert peak["estimate"] == pytest.approx(1.0)
    assert (peak["verdict"], peak["margin"]) == ("reproduced", 10.0)
    area = only(pair("spike_area", *named, expect="equal"), here)
    assert area["estimate"] == 0


def test_an_arm_without_an_event_study_decides_nothing():
    here = study(LAZY16, tables={"spikes": [spike(LAZY16, np.nan, np.nan, np.nan, "not studied")]})
    row = only(pair("spike_peak", expect="higher"), here)
    assert row["verdict"] == "undecided"
    assert row["why"].endswith("not studied, too few")


def test_prunes_are_counted():
    losses = [(LAZY16, tokens(period=16)), (LAZY64, tokens(period=64))]
    named = {"policy": "lazy", "period": 16}, {"policy": "lazy", "period": 64}
    here = study(LAZY16, LAZY64, losses=losses)
    row = only(pair("prunes", *named, expect="higher"), here)
    assert [row["estimate"], row["lo"], row["hi"], row["margin"]] == [300, 300, 300, 0]
    assert (row["verdict"], row["why"]) == ("reproduced", "48 prunes against 12")
    assert only(pair("prunes", *named[::-1], expect="higher"), here)["estimate"] == -75


def test_a_trajectory_is_equal_only_if_no_step_differs():
    named = {"policy": "lazy", "period": 16}, {"policy": "lazy", "period": 64}
    test = pair("trajectory", *named, expect="equal")
    alike = study(LAZY16, LAZY64, losses=[(LAZY16, tokens()), (LAZY64, tokens(1.0))])
    assert only(test, alike)["verdict"] == "reproduced"
    other = tokens()
    other.loc[100, "attended"] += 1
    row = only(test, study(LAZY16, LAZY64, losses=[(LAZY16, tokens()), (LAZY64, other)]))
    assert row["estimate"] == pytest.approx(100 / len(other))
    assert (row["verdict"], row["why"]) == ("contradicted", f"1 of {len(other)} steps differ")


def parts(row, staging=False, layout="compact", status="ok", **sizes):
    return [
        who(row) | {"layout": layout, "staging": staging, "part": part, "bytes": size,
                    "status": status}
        for part, size in sizes.items()
    ]  # fmt: skip


def test_peak_memory_is_the_sum_of_its_parts():
    """Logits are a part of the transient, and what the allocator reserved is none of the arm's."""
    table = parts(STRICT, weights=80, kv=20, cache_state=1, transient=20, logits=15, reserved=1000)
    table += parts(STRICT, staging=True, weights=80, kv=20, transient=20, logits=1)
    table += parts(RECOMPUTE, layout="none", weights=80, kv=0, transient=30, logits=25)
    here = study(STRICT, RECOMPUTE, tables={"memory": table, "timing": [timed(STRICT, 1.0)]})
    test = pair("peak_bytes", STRICT_BESIDE, {"policy": "recompute", "cap_on": "peak"}, "higher")
    row = only(test, here)
    assert row["estimate"] == pytest.approx(10)
    assert (row["verdict"], row["margin"], row["machine"]) == ("reproduced", 5.0, MACHINE)


def test_the_status_of_an_arm_can_be_what_a_claim_says():
    refused = arm("static_cache", status="refused")
    for equals, expected in (("refused", "reproduced"), ("ok", "contradicted")):
        test = parsed(metric="status", arm={"policy": "static_cache"}, equals=equals)
        row = only(test, study(refused, STRICT))
        assert (row["verdict"], row["why"]) == (expected, "the status is refused")


def probed(value, lo=None, hi=None, setting="cap512-S4-R64", status="ok", **more):
    return {
        "probe": "p", "model": "m", "text": "t", "setting": setting, "measure": "x", "value": value,
        "lo": value if lo is None else lo, "hi": value if hi is None else hi, "unit": "ratio",
        "status": status, "why": "no such library" if status != "ok" else "",
    } | more  # fmt: skip


def probe_test(**changes):
    test = {"metric": "probe", "probe": "p", "measure": "x", "value": 1.21, "margin": 5.0,
            "difference": "percent", "expect": "equal"}  # fmt: skip
    return parsed(**{**test, **changes})


def test_a_probe_is_held_against_the_value_that_the_claim_names():
    table = {"probes": [probed(1.18, 1.17, 1.2)], "timing": [timed(STRICT, 1.0)]}
    row = only(probe_test(), study(STRICT, tables=table))
    assert row["estimate"] == pytest.approx(100 * (1.18 / 1.21 - 1))
    assert (row["verdict"], row["machine"]) == ("reproduced", "")
    assert row["arm"] == "p/cap512-S4-R64/x"
    absolute = only(
        probe_test(value=0, difference="absolute", margin=1.0, of="memory"),
        study(STRICT, tables=table),
    )
    assert absolute["estimate"] == pytest.approx(1.18)
    assert (absolute["verdict"], absolute["machine"]) == ("contradicted", MACHINE)


def test_a_probe_against_a_negative_value_keeps_its_bounds_in_order():
    here = study(STRICT, tables={"probes": [probed(-2.0, -2.1, -1.9)]})
    row = only(probe_test(value=-2, margin=6.0), here)
    assert [row["lo"], row["hi"]] == pytest.approx([-5, 5])


def test_a_setting_of_a_probe_is_named_by_a_part_of_it():
    table = [probed(1.21), probed(9.0, setting="cap512-S4-R6"), probed(9.0, setting="R640")]
    here = study(STRICT, tables={"probes": table})
    assert only(probe_test(setting="R64"), here)["verdict"] == "reproduced"
    assert len(evidence(probe_test(), here)) == 3
    assert only(probe_test(setting="R1"), here)["verdict"] == NOT_TESTED


def test_a_probe_that_gave_no_value_is_not_tested_and_one_that_failed_as_told_is():
    here = study(STRICT, tables={"probes": [probed(np.nan, status="unavailable")]})
    row = only(probe_test(), here)
    assert (row["verdict"], row["why"]) == (NOT_TESTED, "unavailable: no such library")
    here = study(STRICT, tables={"probes": [probed(1.0, status="refused")]})
    assert only(probe_test(value=1), here)["verdict"] == "reproduced"


def attention(value, lo=None, hi=None, measure="mask_cache_ratio", machine=MACHINE, **more):
    return {
        "backend": "reference", "length": 32, "dtype": "float32", "measure": measure,
        "value": value, "lo": lo or value, "hi": hi or value, "unit": "ratio", "status": "ok",
        "why": "", "machine": machine, **more,
    }  # fmt: skip


def attention_test(value=1.0, difference="percent", expect="lower", margin=3.0, **rows):
    rows = rows or {"measure": "mask_cache_ratio"}
    return parsed(metric="attention", rows=rows, value=value, difference=difference, expect=expect,
                  margin=margin)  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.90, 0.88, 0.92), "reproduced"),
        ((0.98, 0.96, 0.99), "undecided"),
        ((0.99, 0.975, 1.05), "contradicted"),
    ],
)
def test_a_measure_of_attention_is_held_against_the_value_that_the_claim_names(bounds, expected):
    here = study(STRICT, tables={"attention": [attention(*bounds)]})
    row = only(attention_test(), here)
    assert row["verdict"] == expected
    assert row["estimate"] == pytest.approx(100 * (bounds[0] - 1))
    assert (row["arm"], row["text"]) == ("reference/mask_cache_ratio", "32 tokens, float32")
    assert row["machine"] == MACHINE


def test_what_was_not_timed_names_no_machine_and_must_be_exact():
    finite = [attention(share, measure="finite_x100", backend=backend, machine=None)
              for backend, share in (("reference", 1.0), ("plain", 0.5))]  # fmt: skip
    here = study(STRICT, tables={"attention": finite})
    exact = {"difference": "absolute", "margin": 0, "measure": "finite_x100"}
    row = only(attention_test(expect="equal", backend="reference", **exact), here)
    assert (row["verdict"], row["machine"]) == ("reproduced", "")
    row = only(attention_test(expect="lower", backend="plain", **exact), here)
    assert (row["verdict"], row["estimate"]) == ("reproduced", -0.5)


def test_a_study_without_attention_does_not_test_its_claims():
    row = only(attention_test(), study(STRICT))
    assert (row["verdict"], row["why"]) == (NOT_TESTED, "no row {measure: mask_cache_ratio}")
    lacking = [attention(np.nan, status="unavailable", why="no such unit")]
    row = only(attention_test(), study(STRICT, tables={"attention": lacking}))
    assert (row["verdict"], row["why"]) == (NOT_TESTED, "unavailable: no such unit")


# The recommended arms.

RULE = {"long": Recommendation(texts=["t"], ppl_delta_pct=5.0)}


def recommended(metric, **more):
    return parsed(metric=metric, use="long", **more)


def front(slack_ratio, slack_shift=0.03):
    """A lazy arm and a slack one that may be faster."""
    slack = arm("slack", sinks=4, period=64, slack=16)
    shifts = {LAZY64["setting"]: 0.02, slack["setting"]: slack_shift}
    arms = [
        row | {"ppl_delta_pct": 100 * np.expm1(shifts.get(row["setting"], 0.0))}
        for row in (LAZY64, slack, STRICT, RECOMPUTE)
    ]
    ratios = [0.9, slack_ratio, 1.0]
    table = [timed(row, ratio) for row, ratio in zip(arms[:3], ratios, strict=True)]
    losses = [(row, tokens(shifts.get(row["setting"], 0.0))) for row in arms]
    return study(*arms, tables={"timing": table}, losses=losses, recommend=RULE)


def test_the_recommended_arm_is_held_against_the_limit_and_the_best_other():
    here = front(0.6)
    quality = only(recommended("recommended_ppl", expect="not_higher"), here)
    assert quality["arm"].startswith("slack/")
    assert quality["estimate"] == pytest.approx(100 * np.expm1(0.03) - 5)
    assert (quality["verdict"], quality["reference"]) == ("reproduced", "5%")
    speed = only(
        recommended("recommended_tpot", reference={"policy": "lazy"}, expect="lower"), here
    )
    assert speed["estimate"] == pytest.approx(100 * (0.6 / 0.9 - 1))
    assert (speed["verdict"], speed["machine"]) == ("reproduced", MACHINE)


def test_a_lazy_arm_that_is_recommended_is_not_faster_than_the_best_lazy_arm():
    speed = only(
        recommended("recommended_tpot", reference={"policy": "lazy"}, expect="lower"), front(0.95)
    )
    assert speed["arm"].startswith("lazy/")
    assert [speed["lo"], speed["hi"]] == [0, 0]
    assert speed["verdict"] == "contradicted"


def test_a_faster_arm_beyond_the_limit_is_not_recommended():
    quality = only(recommended("recommended_ppl", expect="not_higher"), front(0.6, slack_shift=0.2))
    assert quality["arm"].startswith("lazy/")


def test_where_no_arm_is_within_the_limit_the_best_of_them_shows_it():
    here = front(0.6)
    strict = Recommendation(texts=["t"], ppl_delta_pct=0.001)
    shifted = here.eviction.assign(ppl_delta_pct=here.eviction["ppl_delta_pct"] + 1)
    found = Study(**{**vars(here), "eviction": shifted, "recommend": {"long": strict}})
    quality = only(recommended("recommended_ppl", expect="not_higher"), found)
    assert quality["arm"].startswith("start_recent/")
    speed = only(
        recommended("recommended_tpot", reference={"policy": "lazy"}, expect="lower"), found
    )
    assert (speed["verdict"], speed["why"]) == (
        NOT_TESTED, "no arm for long, or no {policy: lazy} within its limit",
    )  # fmt: skip


# Evidence and verdicts of claims.


def test_every_arm_that_a_selector_matches_is_a_row_beside_its_own_reference():
    arms = [
        maker | {"text": text, "cap": cap}
        for maker, text, cap in product((LAZY16, STRICT), ("t", "u"), (256, 512))
    ]
    arms = [row | {"setting": f"{row['cap']}-{row['policy']}"} for row in arms]
    losses = [(row, tokens(0.1 * (row["policy"] == "lazy"))) for row in arms]
    found = evidence(pair(reference=STRICT_BESIDE, expect="higher"), study(*arms, losses=losses))
    places = [(row["text"], row["arm"], row["reference"]) for row in found]
    assert places == [
        (text, f"lazy/{cap}-lazy", f"start_recent/{cap}-start_recent")
        for text, cap in product(("t", "u"), (256, 512))
    ]


def test_a_missing_arm_or_reference_is_named():
    here = study(LAZY16)
    named = pair(arm={"policy": "lazy", "period": 32}, reference=STRICT_BESIDE)
    row = only(named, here)
    assert (row["verdict"], row["why"]) == (NOT_TESTED, "no arm {policy: lazy, period: 32}")
    row = only(pair(reference=STRICT_BESIDE), here)
    assert row["why"] == "no reference {policy: start_recent} beside {policy: lazy}"
    row = only(pair("tpot", reference=STRICT_BESIDE), here)
    assert row["why"] == "no arm {policy: lazy}"


def test_an_arm_that_failed_decides_nothing_and_says_why():
    broken = STRICT | {"status": "invalid", "why": "NaN"}
    row = only(pair(reference=STRICT_BESIDE), study(LAZY16, broken))
    assert row["verdict"] == "undecided"
    assert row["why"] == f"start_recent/{STRICT['setting']}: invalid, NaN"
    table = {"timing": [timed(LAZY16, 0.9), timed(broken, 1.0)]}
    row = only(pair("tpot", reference=STRICT_BESIDE), study(LAZY16, broken, tables=table))
    assert row["why"].endswith("invalid, NaN")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["reproduced"], "reproduced"),
        (["reproduced", "contradicted", "undecided", NOT_TESTED], "contradicted"),
        (["reproduced", "undecided"], "undecided"),
        (["reproduced", NOT_TESTED], "undecided"),
        ([NOT_TESTED, NOT_TESTED], NOT_TESTED),
        ([], NOT_TESTED),
    ],
)
def test_the_verdict_of_a_claim_follows_from_all_its_evidence(verdicts, expected):
    assert {overall(order) for order in permutations(verdicts)} == {expected}


def example():
    """A claim with a reproduced test, a contradicted one and one without arms."""
    losses = [(LAZY16, tokens(0.05)), (LAZY64, tokens(0.05)), (STRICT, tokens())]
    here = study(LAZY16, LAZY64, STRICT, losses=losses, tables={"timing": [
        timed(LAZY16, 0.8), timed(LAZY64, 1.2), timed(STRICT, 1.0)]})  # fmt: skip
    quality = pair(reference=STRICT_BESIDE, expect="higher")
    speed = pair("tpot", reference=STRICT_BESIDE)
    absent = pair("tpot", {"policy": "h2o"}, STRICT_BESIDE)
    return here, {
        "quality": claim(quality),
        "speed": claim(quality, speed),
        "part": claim(quality, absent),
        "absent": claim(absent),
        "elsewhere": Claim(source="a log", says="It is so.", not_tested_here="needs a GPU"),
    }


def test_the_claims_row_tells_the_evidence_that_decides():
    here, claims = example()
    table, tests = ledger(claims, here)
    assert tuple(table.columns) == CLAIM_COLUMNS
    assert tuple(tests.columns) == TEST_COLUMNS
    table = table.set_index("id")
    assert table["verdict"].to_dict() == {
        "quality": "reproduced", "speed": "contradicted", "part": "undecided",
        "absent": NOT_TESTED, "elsewhere": NOT_TESTED,
    }  # fmt: skip
    assert table["tests"].tolist() == [2, 4, 2, 0, 0]
    speed = table.loc["speed"]
    assert (speed["metric"], speed["margin"]) == ("tpot", 3.0)
    assert speed["estimate"] == pytest.approx(20)
    assert speed["decided_by"].startswith(f"test 2: lazy/{LAZY64['setting']} against start_recent/")
    assert speed["why"].startswith("3 reproduced, 1 contradicted")
    assert "no arm {policy: h2o}" in table.loc["part", "why"]
    assert table.loc["part", "metric"] == "ppl"
    assert table.loc["absent", "why"] == "no arm {policy: h2o}"
    assert table.loc["elsewhere", "why"] == "needs a GPU"
    assert table.loc[["absent", "elsewhere"], ["estimate", "metric"]].isna().all(axis=None)


def test_only_verdicts_on_time_or_memory_name_the_machine():
    here, claims = example()
    table = ledger(claims, here)[0].set_index("id")
    assert table["machine"].to_dict() == {
        "quality": "", "speed": MACHINE, "part": "", "absent": "", "elsewhere": "",
    }  # fmt: skip


def test_every_verdict_can_be_checked_from_its_own_row():
    here, claims = example()
    _, tests = ledger(claims, here)
    tested = tests[tests["verdict"] != NOT_TESTED]
    assert len(tested) == 8
    for row in tested.itertuples():
        interval = Interval(row.estimate, row.lo, row.hi)
        assert verdict(interval, row.margin, row.expect) == row.verdict
    assert tests["test"].tolist() == [1, 1, 1, 1, 2, 2, 1, 1, 2, 1]


# The noise floor.


def test_the_noise_floor_is_the_largest_difference_between_timed_aliases():
    names = [f"lazy/{LAZY64['setting']}", "start_recent/none"]
    arms = [LAZY64, LAZY16 | {"alias_of": names[0]}, STRICT | {"alias_of": names[1]}]
    table = pd.DataFrame([timed(LAZY64, 1.0), timed(LAZY16, 0.8), timed(STRICT, 7.0)])
    assert noise_floor_pct(rows(*arms), table) == pytest.approx(25)
    assert noise_floor_pct(rows(LAZY64, LAZY16), table) == 0
    assert noise_floor_pct(rows(*arms), pd.DataFrame()) == 0


def test_aliases_at_different_caps_have_different_yardsticks_and_show_no_noise():
    small = arm("slack", cap=256, sinks=4) | {"alias_of": f"lazy/{LAZY64['setting']}"}
    table = pd.DataFrame([timed(LAZY64, 1.0), timed(small, 0.8)])
    assert noise_floor_pct(rows(LAZY64, small), table) == 0


# The entries.


TESTED = {
    "lazy-speed", "lazy-cliff", "spikes", "slack", "max-drop-noop", "max-drop-frequency",
    "softlite", "k16-vs-k64", "soft-ring-roi", "overlap-noop", "overlap-additive",
    "refresh-tail", "bridge", "window-speed", "sinks", "static-cache", "cache-conversion",
    "kernel-mix", "peak-memory", "framework-only", "pos-shift", "gonogo-long", "gonogo-short",
    "ring-exact", "h1-trained-length", "h2-max-drop", "a3-selection", "surprisal", "reuse-ttft",
    "reuse-depth", "mean-field", "lossless", "soft-gate-helps", "decrowd", "deletion-flaws",
    "single-chunk-ln2", "chunkwise-memory", "mask-cache", "stable-softmax", "backward-ratio",
    "compile-graphs", "graph-capture", "attention-side", "int8", "int8-dynamic", "int4",
    "static-rolling", "ring-speed", "ring-tail", "ring-agrees", "ring-flat", "fused-weights",
    "ring-vs-llamacpp", "int8-vs-llamacpp",
}  # fmt: skip
UNTESTED = {"fused-libs"}
"""With a reason for a study that has none of their arms."""


def entries():
    return yaml.safe_load(CONFIG.read_text(encoding="utf-8"))


def test_every_claim_has_an_entry():
    claims = {name: Claim.model_validate(entry) for name, entry in entries()["claims"].items()}
    assert set(claims) == TESTED | UNTESTED
    untested = {name for name, claim in claims.items() if claim.not_tested_here}
    assert untested == UNTESTED


def test_the_margins_are_those_of_the_rule_and_the_uses_exist():
    config = entries()
    assert Margins.model_validate(config["margins"]) == Margins()
    uses = {name: Recommendation.model_validate(use) for name, use in config["recommend"].items()}
    assert {name: use.ppl_delta_pct for name, use in uses.items()} == {"long": 5, "short": 3}
    named = {
        test["use"]
        for entry in config["claims"].values()
        for test in entry.get("tests", [])
        if "use" in test
    }
    assert named == set(uses)


def test_an_empty_study_tests_nothing_and_says_so_of_every_entry():
    config = entries()
    claims = {name: Claim.model_validate(entry) for name, entry in config["claims"].items()}
    uses = {name: Recommendation.model_validate(use) for name, use in config["recommend"].items()}
    table, tests = ledger(claims, study(arm("other"), recommend=uses))
    assert set(table["verdict"]) == {NOT_TESTED}
    assert (table["why"] != "").all()
    assert tests["metric"].nunique() == len(METRICS) + 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": {"period": 16}}, "must name a policy"),
        ({"arm": {"policy": "lazy", "period": "same"}}, "period: same belongs into the reference"),
        ({"reference": None}, "ppl needs an arm to compare with"),
        ({"expect": "better"}, "expect"),
        ({"margin": -1}, "greater than or equal to 0"),
        ({"metric": "speed"}, "metric"),
    ],
)
def test_a_test_that_cannot_be_meant_is_refused(change, message):
    right = {"metric": "ppl", "arm": {"policy": "lazy"}, "reference": STRICT_BESIDE,
             "expect": "lower"}  # fmt: skip
    assert isinstance(Claim(source="s", says="s", tests=[right]).tests[0], PairTest)
    with pytest.raises(ValidationError, match=message):
        Claim(source="s", says="s", tests=[right | change])


def test_a_claim_has_tests_or_a_reason_for_none():
    with pytest.raises(ValidationError, match="give tests, or not_tested_here"):
        Claim(source="s", says="s")


def test_a_reason_stands_in_for_what_a_study_lacks_and_only_for_that():
    test = pair(reference=STRICT_BESIDE)
    with_reason = {"a": claim(test, not_tested_here="nobody has one")}
    lacking, _ = ledger(with_reason, study(arm("other")))
    assert (lacking["verdict"][0], lacking["why"][0]) == (NOT_TESTED, "nobody has one")
    losses = [(LAZY16, tokens(0.02)), (STRICT, tokens())]
    found, _ = ledger(with_reason, study(LAZY16, STRICT, losses=losses))
    assert found["verdict"][0] == "contradicted"
    assert "nobody has one" not in found["why"][0]


def test_other_entries_that_cannot_be_meant_are_refused():
    with pytest.raises(ValidationError, match="nothing is a percentage of 0"):
        probe_test(value=0)
    with pytest.raises(ValidationError, match="recommended_tpot needs it"):
        recommended("recommended_tpot", expect="lower")
    assert isinstance(probe_test(), ProbeTest)
