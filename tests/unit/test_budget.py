"""From a total budget to a policy, and from the configuration to arms that keep to it."""

import dataclasses
import itertools
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpareto.eviction import arms
from kvpareto.eviction.arms import (
    Arm,
    baseline,
    caps_of,
    policy_of,
    prefill_length,
    score_from,
    study_arms,
    timing_yardstick,
    yardstick,
)
from kvpareto.eviction.autocap import BudgetError, build_policy
from kvpareto.eviction.policies.full import Full
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policy import Clock, EvictionPolicy
from kvpareto.eviction.trajectory import Trajectory, simulate
from kvpareto.settings import Settings, SettingsError, parse_settings


def study(groups: dict[str, dict], **rest) -> Settings:
    """A study of two models and two texts; a group uses the first of each, cap 64 post-prune."""
    text = {"source": "stdlib", "part": "code", "documents": ["argparse"], "tokens": 9}
    plain = {"models": ["m1"], "texts": ["t1"], "caps": [64]}
    return parse_settings(
        {
            "study": "test",
            "models": {"m1": {"path": "./m1"}, "m2": {"path": "./m2"}},
            "texts": {"t1": text, "t2": text},
            "eviction": {name: plain | group for name, group in groups.items()},
            **rest,
        }
    )


def one_group(*entries: dict, **group) -> list[Arm]:
    return study_arms(study({"core": {"arms": list(entries)} | group}))


def settings_of(policy: str, found: list[Arm]) -> list[dict]:
    return [arm.setting for arm in found if arm.policy == policy]


# Auto-cap.


@pytest.mark.parametrize(
    ("name", "parameters", "cap_on", "window"),
    [
        ("start_recent", {"sinks": 4}, "post_prune", 60),
        ("start_recent", {"sinks": 4}, "peak", 59),  # the current token is attended as well
        ("start_recent", {"sinks": 0}, "post_prune", 64),
        ("recent", {}, "post_prune", 64),
        ("recent", {}, "peak", 63),
        ("recompute", {}, "peak", 63),
        ("lazy", {"sinks": 4, "period": 16}, "post_prune", 60),
        ("lazy", {"sinks": 4, "period": 16}, "peak", 44),
        ("lazy", {"sinks": 4, "period": 59}, "peak", 1),
        ("random", {"sinks": 8, "period": 16}, "post_prune", 56),
        ("random", {"sinks": 8, "period": 16}, "peak", 40),
    ],
)
def test_the_window_is_what_the_other_parts_leave(name, parameters, cap_on, window):
    policy = build_policy(name, 64, cap_on, parameters)
    assert policy.window == window
    overshoot = policy.overshoot if cap_on == "peak" else 0
    assert policy.capacity == 64 - policy.reserved - overshoot


@pytest.mark.parametrize(
    ("name", "parameters", "post_prune", "peak", "beside"),
    [
        ("adaptive_entropy", {"period_min": 5, "period_max": 9}, 60, 51, 4),
        ("adaptive_slack", {"delta": 8}, 60, 51, 4),
        ("bridge", {"period": 9, "bridge": 3}, 57, 48, 7),
        ("h2o", {"period": 9}, 60, 51, 4),  # the newest half is part of the window
        ("max_drop", {"period": 9, "slack": 6, "max_drop": 2}, 54, 51, 4),
        # A cooling stream keeps to the hard limit, and below its capacity for want of slack.
        ("max_drop", {"period": 9, "slack": 6, "variant": "cooldown"}, 51, 51, 7),
        ("max_drop", {"period": 9, "slack": 0, "variant": "cooldown"}, 51, 50, 13),
        ("overlap", {"period": 9, "overlap": 3}, 57, 48, 7),
        ("refresh", {"period": 9, "budget": 3}, 57, 48, 7),
        ("scissorhands", {"recent": 5}, 46, 45, 18),
        ("slack", {"period": 9, "slack": 6}, 54, 51, 4),
        ("slack", {"period": 9, "slack": 12}, 48, 48, 4),
        ("snapkv", {"period": 9, "recent": 5}, 56, 47, 8),
    ],
)
def test_slack_and_whatever_lies_beside_the_window_come_off_it_too(
    name, parameters, post_prune, peak, beside
):
    assert build_policy(name, 64, "post_prune", parameters).window == post_prune
    bounded = build_policy(name, 64, "peak", parameters)
    assert bounded.window == peak
    assert bounded.peak == 64
    free = build_policy(name, 64, "none", parameters, window=30)
    assert (free.window, free.capacity) == (30, 30 + beside)


def test_without_a_bound_the_window_is_the_one_asked_for():
    policy = build_policy("lazy", 64, "none", {"sinks": 4, "period": 16}, window=100)
    assert (policy.window, policy.capacity) == (100, 104)


def test_a_policy_without_a_budget_keeps_its_capacity_of_zero():
    assert build_policy("full", None, None, {}) == Full()


@pytest.mark.parametrize(
    ("name", "cap", "cap_on", "parameters", "message"),
    [
        (
            "start_recent", 4, "post_prune", {"sinks": 4},
            r"start_recent with {'sinks': 4}: cap 4 on post_prune leaves no recent window "
            r"\(4 beside it, 0 reserved, 1 overshoot\)",
        ),
        ("start_recent", 5, "peak", {"sinks": 4}, r"cap 5 on peak .*\(4 beside it.*1 overshoot\)"),
        ("lazy", 64, "peak", {"period": 60}, r"cap 64 on peak .*\(4 beside it.*60 overshoot\)"),
        ("lazy", 64, "peak", {"priod": 60}, "lazy has no parameter 'priod'; it has sinks, period"),
        ("recent", 64, "peak", {"sinks": 4}, "recent has no parameter 'sinks'; it has none"),
        ("lazy", 64, "peak", {"capacity": 9}, "lazy has no parameter 'capacity'"),
        ("lazy", 64, "peak", {"period": -2}, "lazy: period should be greater than 0, not -2"),
        ("lazy", 64, "none", {}, "lazy: window, which cap_on none needs, should be a valid int"),
    ],
)  # fmt: skip
def test_an_impossible_budget_is_refused_with_its_numbers(name, cap, cap_on, parameters, message):
    with pytest.raises(BudgetError, match=message):
        build_policy(name, cap, cap_on, parameters)


# Trajectories.

lengths = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9)), min_size=1, max_size=30)


@given(lengths)
def test_the_three_budgets_of_a_trajectory_against_a_plain_loop(steps):
    attended = [length + drop for length, drop in steps]
    trajectory = Trajectory(np.array(attended), np.array([drop for _, drop in steps]))
    after_prunes = [length for length, drop in steps if drop]
    assert trajectory.post_prune == (max(after_prunes) if after_prunes else steps[-1][0])
    assert trajectory.peak_attended == max(attended)
    assert trajectory.mean_attended == pytest.approx(sum(attended) / len(attended))
    assert trajectory.kept.tolist() == [length for length, _ in steps]


@given(lengths, lengths)
def test_digests_are_equal_for_equal_lengths_only(one, other):
    digests = []
    for steps in (one, other):
        attended, dropped = np.array(steps).T
        digests.append(Trajectory(attended, dropped).digest)
    assert (digests[0] == digests[1]) == (one == other)


def test_a_strict_stream_attends_one_more_than_it_keeps():
    trajectory = simulate(StartRecent(capacity=8), prefill=8, steps=5)
    assert trajectory.attended.tolist() == [9] * 5
    assert trajectory.dropped.tolist() == [1] * 5


@settings(deadline=None)
@given(prefill=st.integers(0, 9), steps=st.integers(1, 30), seed=st.integers(0, 9))
def test_a_policy_sees_the_step_the_length_and_the_time_since_its_last_prune(prefill, steps, seed):
    seen: list[Clock] = []

    @dataclass(frozen=True)
    class Witness(EvictionPolicy):
        sinks: int = 0

        def drop(self, clock: Clock) -> int:
            seen.append(clock)
            return int(np.random.default_rng([seed, clock.step]).integers(clock.length))

    trajectory = simulate(Witness(), prefill, steps)
    length, since = prefill, 0
    for step, (clock, drop) in enumerate(zip(seen, trajectory.dropped, strict=True), start=1):
        length, since = length + 1, since + 1
        assert clock == Clock(step, length, since)
        length, since = length - drop, 0 if drop else since


@pytest.mark.parametrize("wanted", [-1, 6, 10, 11])
def test_a_policy_that_would_lose_sinks_or_the_newest_entry_is_refused(wanted):
    @dataclass(frozen=True)
    class Greedy(EvictionPolicy):
        def drop(self, clock: Clock) -> int:
            return wanted if clock.step == 3 else 0

    message = f"Greedy wants to evict {wanted} of 10 entries at step 3, with 4 sinks"
    with pytest.raises(ValueError, match=message):
        simulate(Greedy(), prefill=7, steps=5)


@pytest.mark.parametrize(
    ("name", "cap", "parameters", "prefill"),
    [
        ("start_recent", 64, {"sinks": 4}, 63),
        ("lazy", 64, {"period": 16}, 48),
        ("full", None, {}, 512),  # nothing bounds it: everything up to the first scored token
    ],
)
def test_as_much_is_prefilled_as_a_policy_keeps(name, cap, parameters, prefill):
    policy = build_policy(name, cap, cap and "peak", parameters)
    assert prefill_length(policy, 512) == prefill
    assert prefill_length(policy, 10) == 10


# Arms.


def test_the_references_of_every_arm_are_part_of_the_study():
    found = one_group({"policy": "lazy", "period": [8]}, caps=[32, 64], cap_on=["peak"])
    assert sorted({arm.policy for arm in found}) == ["lazy", "recompute", "start_recent"]
    config = study({"core": {"arms": [{"policy": "lazy"}], "caps": [32, 64]}})
    paths = {arm.path for arm in found}
    for arm in found:
        reference = yardstick(arm, config)
        base = baseline(arm.model, arm.text, reference.cap)
        assert {reference.path, base.path, yardstick(base, config).path} <= paths


@pytest.mark.parametrize(
    ("policy", "setting", "expected"),
    [
        ("lazy", {"cap": 32, "cap_on": "peak"}, {"cap": 32, "cap_on": "peak"}),
        ("lazy", {"cap": 32, "cap_on": "post_prune"}, {"cap": 32, "cap_on": "post_prune"}),
        # The sources' meaning where there is no bound, the largest cap where there is no cap.
        ("lazy", {"cap": 32, "cap_on": "none", "window": 9}, {"cap": 32, "cap_on": "post_prune"}),
        ("full", {"cap": None, "cap_on": None}, {"cap": 64, "cap_on": "post_prune"}),
        ("recompute", {"cap": 32, "cap_on": "peak"}, {"cap": 32, "cap_on": "post_prune"}),
    ],
)
def test_the_yardstick_has_the_arms_own_budget(policy, setting, expected):
    config = study(
        {"core": {"arms": [{"policy": "full"}], "caps": [64, 32]}}, timing={"yardstick_sinks": 6}
    )
    reference = yardstick(Arm("m1", "t1", policy, setting), config)
    assert (reference.policy, reference.setting) == ("start_recent", expected | {"sinks": 6})
    built = policy_of(reference.policy, reference.setting)
    assert built.window == expected["cap"] - 6 - (expected["cap_on"] == "peak")


@pytest.mark.parametrize("cap_on", ["post_prune", "peak"])
def test_all_timings_at_a_cap_are_paired_with_one_and_the_same_arm(cap_on):
    config = study({"core": {"arms": [{"policy": "full"}], "caps": [64, 32]}})
    arm = Arm("m1", "t1", "lazy", {"cap": 32, "cap_on": cap_on})
    expected = {"cap": 32, "cap_on": "post_prune", "sinks": 4}
    assert timing_yardstick(arm, config).setting == expected


def test_largest_caps_are_found_over_groups_and_per_model_and_text():
    config = study(
        {
            "core": {"arms": [{"policy": "full"}], "caps": [64, 32]},
            "wide": {"arms": [{"policy": "full"}], "caps": [256], "models": ["m2"]},
        }
    )
    assert caps_of(config, "m1", "t1") == [32, 64]
    assert caps_of(config, "m2", "t1") == [256]
    assert caps_of(config, "m2", "t2") == []
    assert score_from(config) == 256


def test_sweeps_are_crossed():
    entry = {"policy": "lazy", "sinks": [0, 2], "period": [1, 4, 8], "trigger": ["clock"]}
    group = {"caps": [32, 64], "cap_on": ["post_prune", "peak"], "models": ["m1", "m2"]}
    found = [arm for arm in one_group(entry, **group) if arm.policy == "lazy"]
    rows = [
        (arm.model, *(arm.setting[key] for key in ("cap", "cap_on", "sinks", "period")))
        for arm in found
    ]
    wanted = itertools.product(["m1", "m2"], [32, 64], ["post_prune", "peak"], [0, 2], [1, 4, 8])
    assert sorted(rows) == sorted(wanted)


def test_what_is_not_swept_has_its_default_written_down():
    (setting,) = settings_of("lazy", one_group({"policy": "lazy", "period": [8]}))
    assert setting == {
        "cap": 64, "cap_on": "post_prune", "sinks": 4, "period": 8, "trigger": "overflow",
    }  # fmt: skip


def test_a_default_spelt_out_is_the_same_arm():
    plain = one_group({"policy": "lazy"})
    explicit = one_group({"policy": "lazy", "trigger": ["overflow"], "sinks": [4]})
    assert plain == explicit


def test_each_arm_comes_once_however_often_it_is_named():
    entries = [{"policy": "lazy", "period": [4, 8, 4]}, {"policy": "lazy", "period": [8]}]
    groups = {name: {"arms": entries, "caps": [64, 64]} for name in ("one", "two")}
    found = study_arms(study(groups))
    assert len(settings_of("lazy", found)) == 2
    assert len({arm.path for arm in found}) == len(found)
    assert len({arm.setting_id for arm in found}) == len(found)


def test_the_order_of_arms_is_that_of_their_paths_whatever_the_configuration_says():
    entries = [{"policy": "lazy", "period": [8, 4]}, {"policy": "recent"}, {"policy": "full"}]
    found = one_group(*entries, texts=["t2", "t1"])
    assert found == one_group(*reversed(entries), texts=["t1", "t2"])
    assert [arm.path for arm in found] == sorted(arm.path for arm in found)


def test_an_arm_can_be_built_from_its_setting():
    for arm in one_group({"policy": "lazy", "cap_on": ["none"], "window": [20, 30]}):
        policy = policy_of(arm.policy, arm.setting)
        if arm.policy == "lazy":
            assert policy.window == arm.setting["window"]
        assert dataclasses.replace(policy) == policy


@pytest.mark.parametrize(
    ("entry", "group", "expected"),
    [
        ({"policy": "recent", "cap_on": ["peak"]}, {"cap_on": ["post_prune"]}, ["peak"]),
        ({"policy": "recent"}, {"cap_on": ["post_prune", "peak"]}, ["post_prune", "peak"]),
        ({"policy": "full"}, {"cap_on": ["post_prune", "peak"]}, [None]),
    ],
)
def test_an_entry_may_say_what_its_cap_is_on(entry, group, expected):
    found = settings_of(entry["policy"], one_group(entry, **group))
    assert sorted(map(str, (one["cap_on"] for one in found))) == sorted(map(str, expected))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"policy": "lazzy"}, "no policy 'lazzy'; each file in src/kvpareto/eviction/policies"),
        ({"policy": "lazy", "period": 8}, r"period must be a non-empty list, not 8: write \[8\]"),
        ({"policy": "lazy", "period": []}, r"period must be a non-empty list, not \[\]"),
        ({"policy": "lazy", "periods": [8]}, "lazy has no parameter 'periods'; it has sinks"),
        ({"policy": "recent", "sinks": [8]}, "recent has no parameter 'sinks'; it has none"),
        ({"policy": "lazy", "period": [-8]}, "lazy: period should be greater than 0, not -8"),
        ({"policy": "lazy", "sinks": [64]}, "cap 64 on post_prune leaves no recent window"),
        ({"policy": "lazy", "cap_on": ["peak"]}, "cap 64 on peak leaves no recent window"),
        ({"policy": "lazy", "cap_on": ["none"]}, "window, which cap_on none needs, should be"),
        ({"policy": "lazy", "cap_on": ["none"], "window": [0]}, "should be greater than 0, not 0"),
        ({"policy": "lazy", "cap_on": ["none"], "window": ["9"]}, "valid integer, not '9'"),
        ({"policy": "lazy", "window": [9]}, "window follows from the cap unless cap_on is none"),
        ({"policy": "lazy", "period": ["64"]}, "period should be a valid integer, not '64'"),
        ({"policy": "lazy", "period": ["64"], "cap_on": ["peak"]}, "valid integer, not '64'"),
        ({"policy": "lazy", "period": [16.0]}, "period should be a valid integer, not 16.0"),
        ({"policy": "lazy", "period": [True]}, "period should be a valid integer, not True"),
        ({"policy": "lazy", "period": [0]}, "period should be greater than 0, not 0"),
        ({"policy": "random", "period": [0]}, "period should be greater than 0, not 0"),
        ({"policy": "lazy", "trigger": ["never"]}, "trigger should be 'overflow' or 'clock', not"),
    ],
)
def test_an_impossible_arm_is_named_by_its_place_in_the_configuration(entry, message):
    with pytest.raises(SettingsError, match=rf"eviction\.core\.arms\.1: .*{message}"):
        one_group({"policy": "full"}, entry)


def test_all_impossible_arms_are_named_at_once():
    groups = {
        "one": {"arms": [{"policy": "full"}, {"policy": "lazzy"}, {"policy": "lazy", "a": [1]}]},
        "two": {"arms": [{"policy": "start_recent", "sinks": [99]}]},
    }
    with pytest.raises(SettingsError) as caught:
        study_arms(study(groups))
    places = re.findall(r"eviction\.\w+\.arms\.\d+", str(caught.value))
    assert places == ["eviction.one.arms.1", "eviction.one.arms.2", "eviction.two.arms.0"]


def test_every_impossible_setting_of_one_entry_is_named():
    with pytest.raises(SettingsError) as caught:
        one_group({"policy": "lazy", "period": [8, 60, 61]}, cap_on=["peak"])
    assert str(caught.value).count("leaves no recent window") == 2


def test_an_impossible_yardstick_is_refused_before_anything_runs():
    config = study({"core": {"arms": [{"policy": "recent"}]}}, timing={"yardstick_sinks": 64})
    with pytest.raises(SettingsError, match=r"timing\.yardstick_sinks .*no recent window"):
        study_arms(config)


def test_a_policy_that_breaks_its_own_cap_is_refused_with_the_numbers(monkeypatch):
    @dataclass(frozen=True)
    class Late(StartRecent):
        """Prunes every second token and says that it prunes after every one."""

        def drop(self, clock: Clock) -> int:
            over = clock.length - self.capacity
            return over if over > 1 else 0

    for module in ("arms", "autocap"):
        monkeypatch.setattr(f"kvpareto.eviction.{module}.policy_class", lambda name: Late)
    with pytest.raises(BudgetError, match="reaches 65 entries peak, over its cap of 64"):
        arms.check("late", {"cap": 64, "cap_on": "peak", "sinks": 4})
    assert arms.check("late", {"cap": 64, "cap_on": "post_prune", "sinks": 4}).post_prune == 64
