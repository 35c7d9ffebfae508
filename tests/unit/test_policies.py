"""Policies: what every one of them must do, and what each one says it does.

A new policy is one new row in `DEFAULTS`, and every test of the first half holds for it.
"""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kvpareto.eviction.policies
from kvpareto.eviction.arms import prefill_length, setting_id
from kvpareto.eviction.autocap import BudgetError, build_policy
from kvpareto.eviction.policies.full import Full
from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.random import Random
from kvpareto.eviction.policies.recent import Recent
from kvpareto.eviction.policies.recompute import Recompute
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policy import (
    Clock,
    Entries,
    EvictionPolicy,
    hyper_parameters,
    policy_class,
    sinks_and_recent,
)
from kvpareto.eviction.trajectory import simulate

DEFAULTS: dict[str, EvictionPolicy] = {
    "full": Full(),
    "lazy": Lazy(),
    "random": Random(),
    "recent": Recent(),
    "recompute": Recompute(),
    "start_recent": StartRecent(),
}
"""One default instance of every file in policies/."""

VALUES = {
    "sinks": st.integers(0, 6),
    "period": st.integers(1, 9),
    "seed": st.integers(0, 3),
    "trigger": st.sampled_from(["overflow", "clock"]),
}
"""Values to try of hyper-parameters by name; one that is not here keeps its default."""

ROWS, HEADS, LAYERS = 2, 3, 2

every_policy = pytest.mark.parametrize("name", DEFAULTS)
few = settings(max_examples=20, deadline=None)


def parameters_of(name: str) -> st.SearchStrategy[dict]:
    known = hyper_parameters(type(DEFAULTS[name]))
    return st.fixed_dictionaries({key: VALUES[key] for key in known if key in VALUES})


def drawn(data: st.DataObject, name: str) -> tuple[EvictionPolicy, int | None, str | None]:
    """A policy with drawn parameters at a drawn cap that leaves it a window; its cap and cap_on."""
    parameters = data.draw(parameters_of(name))
    bare = type(DEFAULTS[name])(**parameters)
    bounded = [cap_on for cap_on in bare.budgets if cap_on != "none"]
    if not bounded:
        return bare, None, None
    cap_on = data.draw(st.sampled_from(bounded))
    least = bare.beside_window + bare.reserved + bare.overshoot + 1
    cap = data.draw(st.integers(least, least + 20))
    return build_policy(name, cap, cap_on, parameters), cap, cap_on


def decided(policy: EvictionPolicy, tokens: int, layer: int = 0) -> list[torch.Tensor]:
    """The tokens (by index) that a layer holds after each token of a stream, [rows, heads, kept].

    Raises:
        AssertionError: an answer of the policy is none of the sorted subsets that it may give.
    """
    held = torch.empty(ROWS, HEADS, 0, dtype=torch.int64)
    after, since_prune = [], 0
    for token in range(tokens):
        held = torch.cat([held, torch.full((ROWS, HEADS, 1), token)], dim=-1)
        length, since_prune = held.shape[-1], since_prune + 1
        drop = policy.drop(Clock(token + 1, length, since_prune))
        assert 0 <= drop < length
        if drop:
            since_prune = 0
            entries = Entries(length, ROWS, HEADS, layer, token + 1)
            keep = policy.keep(entries, drop)
            assert keep.dtype == torch.int64
            assert keep.shape in {(length - drop,), (ROWS, HEADS, length - drop)}
            assert (keep[..., 1:] > keep[..., :-1]).all()
            assert (keep >= 0).all()
            assert (keep < length).all()
            held = held.gather(-1, keep.expand(ROWS, HEADS, -1))
        after.append(held)
    return after


# What every policy must do.


def test_every_policy_file_has_a_row():
    folder = Path(kvpareto.eviction.policies.__file__).parent
    assert sorted(DEFAULTS) == sorted(
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    )
    assert {name: policy_class(name) for name in DEFAULTS} == {
        name: type(policy) for name, policy in DEFAULTS.items()
    }


@every_policy
@few
@given(data=st.data())
def test_the_budget_is_never_exceeded(name, data):
    """From any prefill that the policy could have, at any step."""
    policy, cap, cap_on = drawn(data, name)
    prefill = data.draw(st.integers(min(policy.sinks, policy.capacity), policy.capacity))
    trajectory = simulate(policy, prefill, steps=80)
    if cap is None:
        assert not trajectory.dropped.any()
        return
    assert trajectory.kept[trajectory.dropped > 0].max(initial=0) <= policy.capacity <= cap
    assert trajectory.peak_attended <= policy.capacity + max(1, policy.overshoot)
    if cap_on == "peak" and policy.uses_cache:
        assert trajectory.peak_attended <= cap


@every_policy
@few
@given(data=st.data())
def test_sinks_and_the_newest_entry_are_never_lost(name, data):
    policy, _, _ = drawn(data, name)
    for token, held in enumerate(decided(policy, 50)):
        sinks = torch.arange(min(policy.sinks, token + 1)).expand(ROWS, HEADS, -1)
        assert torch.equal(held[..., : sinks.shape[-1]], sinks)
        assert (held[..., -1] == token).all()


@every_policy
@few
@given(data=st.data())
def test_equal_policies_decide_equally(name, data):
    """Nothing is remembered from one stream to the next, and nothing else is drawn on."""
    policy, _, _ = drawn(data, name)
    first = decided(policy, 40)
    torch.manual_seed(data.draw(st.integers(0, 9)))
    for held, again in zip(first, decided(policy, 40), strict=True):
        assert torch.equal(held, again)


@every_policy
@few
@given(data=st.data())
def test_lengths_alone_decide_how_many_entries_go(name, data):
    """A simulated stream, which has no entries, has the lengths of a real one."""
    policy, _, _ = drawn(data, name)
    held = decided(policy, 50)
    assert simulate(policy, 0, 50).kept.tolist() == [one.shape[-1] for one in held]


@every_policy
def test_the_defaults_can_be_built_at_the_caps_of_the_default_study(name):
    for cap_on in DEFAULTS[name].budgets:
        window = 256 if cap_on == "none" else None
        policy = build_policy(name, 256, cap_on, {}, window)
        assert policy.window >= 1
        assert prefill_length(policy, 512) == policy.capacity
        simulate(policy, policy.capacity, 600)


@every_policy
@pytest.mark.parametrize("value", [-1, "4", 4.0, True, None, [4]])
def test_a_hyper_parameter_of_the_wrong_type_is_refused_by_name(name, value):
    for key in hyper_parameters(type(DEFAULTS[name])):
        with pytest.raises(BudgetError, match=rf"{name}: {key} .*, not {re.escape(repr(value))}"):
            build_policy(name, 512, DEFAULTS[name].budgets[0], {key: value})


# What each policy says it does, as a plain loop over the tokens that are held.


def strict(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    """The first S and the last W tokens of all that were seen."""
    recent = len(seen) - policy.window
    return [token for token in seen if token < policy.sinks or token >= recent]


def last(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    return seen[-policy.capacity :]


def everything(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    return seen


@pytest.mark.parametrize(
    ("name", "definition"),
    [("start_recent", strict), ("recent", last), ("recompute", last), ("full", everything)],
)
@few
@given(data=st.data())
def test_strict_policies_hold_what_their_definition_says(
    name: str, definition: Callable, data: st.DataObject
):
    policy, _, _ = drawn(data, name)
    for token, held in enumerate(decided(policy, 60)):
        expected = torch.tensor(definition(policy, list(range(token + 1))))
        assert torch.equal(held, expected.expand(ROWS, HEADS, -1))


@few
@given(
    sinks=st.integers(0, 5),
    window=st.integers(1, 20),
    period=st.integers(1, 12),
    trigger=st.sampled_from(["overflow", "clock"]),
)
def test_lazy_prunes_to_sinks_and_recent_when_it_is_due_and_not_before(
    sinks, window, period, trigger
):
    policy = Lazy(capacity=sinks + window, sinks=sinks, period=period, trigger=trigger)
    tokens: list[int] = []
    for step, held in enumerate(decided(policy, 80), start=1):
        tokens.append(step - 1)
        over = len(tokens) - policy.capacity
        if over > 0 and (over >= period if trigger == "overflow" else step % period == 0):
            tokens = tokens[:sinks] + tokens[-window:]
        assert torch.equal(held, torch.tensor(tokens).expand(ROWS, HEADS, -1))


@few
@given(sinks=st.integers(0, 5), window=st.integers(1, 20), prefill=st.integers(0, 40))
def test_lazy_with_period_1_is_start_recent(sinks, window, prefill):
    strict_one = StartRecent(capacity=sinks + window, sinks=sinks)
    expected = simulate(strict_one, min(prefill, strict_one.capacity), 60)
    for trigger in ("overflow", "clock"):
        lazy = Lazy(capacity=sinks + window, sinks=sinks, period=1, trigger=trigger)
        assert simulate(lazy, min(prefill, lazy.capacity), 60).digest == expected.digest
    assert strict_one.keeps_sinks_and_recent
    assert lazy.keeps_sinks_and_recent


@few
@given(period=st.integers(1, 12), free=st.integers(0, 30))
def test_the_two_triggers_of_lazy_differ_only_by_where_they_start_to_count(period, free):
    """`clock` counts from the prefill, `overflow` from a full cache: `free` tokens later."""
    overflow, clock = (
        simulate(Lazy(capacity=34, period=period, trigger=trigger), 34 - free, 100)
        for trigger in ("overflow", "clock")
    )
    assert (overflow.digest == clock.digest) == (free % period == 0)
    # Once pruning has begun, both let exactly `period` tokens pass between two prunes.
    for trajectory in (overflow, clock):
        steps = trajectory.dropped.nonzero()[0]
        assert {after - before for before, after in pairwise(steps)} == {period}


@few
@given(
    sinks=st.integers(0, 5),
    window=st.integers(1, 20),
    period=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_random_has_the_lengths_of_lazy_and_spares_sinks_and_the_newest(
    sinks, window, period, seed
):
    policy = Random(capacity=sinks + window, sinks=sinks, period=period, seed=seed)
    lazy = Lazy(capacity=sinks + window, sinks=sinks, period=period)
    assert simulate(policy, 0, 80).digest == simulate(lazy, 0, 80).digest
    spared = min(period, window)
    for token, held in enumerate(decided(policy, 60)):
        newest = torch.arange(token + 1)[-spared:].expand(ROWS, HEADS, -1)
        assert torch.equal(held[..., -newest.shape[-1] :], newest)


def test_random_draws_anew_in_every_row_head_layer_step_and_seed():
    entries = Entries(length=200, rows=2, heads=2, layer=0, step=5)
    keep = Random(seed=1).keep(entries, 50)
    draws = [tuple(keep[row, head].tolist()) for row in range(2) for head in range(2)]
    for policy, layer, step in ((Random(seed=1), 1, 5), (Random(seed=1), 0, 6), (Random(), 0, 5)):
        other = policy.keep(Entries(200, 2, 2, layer, step), 50)
        draws += [tuple(other[row, head].tolist()) for row in range(2) for head in range(2)]
    assert len(set(draws)) == len(draws)


def test_random_gives_a_document_the_same_draws_alone_and_in_a_batch():
    together = Random().keep(Entries(100, 4, HEADS, 0, 9), 20)
    alone = Random().keep(Entries(100, 1, HEADS, 0, 9), 20)
    assert torch.equal(together[:1], alone)


def test_random_evicts_every_candidate_equally_often():
    entries = Entries(length=40, rows=500, heads=4, layer=0, step=1)
    keep = Random(sinks=4, period=6).keep(entries, 10)
    kept = torch.bincount(keep.flatten(), minlength=40) / 2000
    assert (kept[:4] == 1).all()
    assert (kept[-6:] == 1).all()
    # 10 of 30 candidates go; five standard errors of a share over 2000 draws are 0.053.
    assert (kept[4:-6] - 2 / 3).abs().max() < 0.053


@given(st.data())
def test_sinks_and_recent_is_everything_but_one_gap(data):
    length = data.draw(st.integers(1, 50))
    sinks = data.draw(st.integers(0, length - 1))
    drop = data.draw(st.integers(0, length - sinks - 1))
    gone = range(sinks, sinks + drop)
    expected = [entry for entry in range(length) if entry not in gone]
    assert sinks_and_recent(length, sinks, drop).tolist() == expected


# Names of policies and ids of settings.


@pytest.mark.parametrize("name", ["nonsense", "start-recent", "lazy.trigger"])
def test_a_policy_without_a_file_is_a_key_error(name):
    with pytest.raises(KeyError, match=re.escape(repr(name))):
        policy_class(name)


@pytest.mark.parametrize(
    ("policy", "setting", "expected"),
    [
        ("full", {"cap": None, "cap_on": None}, "ab36d675"),
        ("recent", {"cap": 64, "cap_on": "post_prune"}, "cap64-postprune-3abebda5"),
        (
            "lazy",
            {"cap": 512, "cap_on": "peak", "sinks": 4, "period": 64, "trigger": "overflow"},
            "cap512-peak-S4-R64-overflow-48c32708",
        ),
        (
            "start_recent",
            {"cap": 64, "cap_on": "none", "sinks": 4, "window": 16},
            "cap64-none-S4-W16-ddeebdce",
        ),
        (
            "random",
            {"cap": 64, "cap_on": "peak", "sinks": 4, "period": 16, "seed": 3},
            "cap64-peak-S4-R16-seed3-a539bcc7",
        ),
    ],
)
def test_a_setting_id_reads_as_the_setting_and_never_changes(policy, setting, expected):
    """Results are found by these ids, so they are pinned here with their digests."""
    assert setting_id(policy, setting) == expected
    assert re.fullmatch("[A-Za-z0-9.-]+", expected)  # what a rule takes for a setting


some_settings = st.builds(
    lambda *values: dict(zip(("cap", "cap_on", "sinks", "period", "trigger"), values, strict=True)),
    st.integers(8, 10),
    st.sampled_from(["post_prune", "peak"]),
    st.integers(0, 2),
    st.integers(1, 2),
    VALUES["trigger"],
)


@given(some_settings, st.permutations(["cap", "cap_on", "sinks", "period", "trigger"]))
def test_the_order_of_a_settings_keys_does_not_change_its_id(setting, order):
    """setting.json has its keys sorted."""
    assert setting_id("lazy", {key: setting[key] for key in order}) == setting_id("lazy", setting)


@given(one=some_settings, other=some_settings)
def test_different_settings_have_different_ids(one, other):
    assert (setting_id("lazy", one) == setting_id("lazy", other)) == (one == other)
