"""Policies: what every one of them must do.

A new policy is one new row in `DEFAULTS`, and every test of the first half holds for it.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.driver import HEADS, LAYERS, ROWS, Driver, decided, lengths, prunes, signals

import kvpareto.eviction.policies
from kvpareto.eviction.arms import prefill_length, setting_id
from kvpareto.eviction.autocap import BudgetError, build_policy
from kvpareto.eviction.policies.adaptive_entropy import AdaptiveEntropy
from kvpareto.eviction.policies.adaptive_slack import AdaptiveSlack
from kvpareto.eviction.policies.bridge import Bridge
from kvpareto.eviction.policies.full import Full
from kvpareto.eviction.policies.h2o import H2O
from kvpareto.eviction.policies.keydiff import KeyDiff
from kvpareto.eviction.policies.knorm import KNorm
from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.max_drop import MaxDrop
from kvpareto.eviction.policies.overlap import Overlap
from kvpareto.eviction.policies.pyramidkv import PyramidKV
from kvpareto.eviction.policies.random import Random
from kvpareto.eviction.policies.recent import Recent
from kvpareto.eviction.policies.recompute import Recompute
from kvpareto.eviction.policies.refresh import Refresh
from kvpareto.eviction.policies.scissorhands import Scissorhands
from kvpareto.eviction.policies.slack import Slack
from kvpareto.eviction.policies.snapkv import SnapKV
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policies.static_cache import StaticCache
from kvpareto.eviction.policies.tova import Tova
from kvpareto.eviction.policy import EvictionPolicy, hyper_parameters, policy_class
from kvpareto.eviction.trajectory import simulate

DEFAULTS: dict[str, EvictionPolicy] = {
    "adaptive_entropy": AdaptiveEntropy(),
    "adaptive_slack": AdaptiveSlack(),
    "bridge": Bridge(),
    "full": Full(),
    "h2o": H2O(),
    "keydiff": KeyDiff(),
    "knorm": KNorm(),
    "lazy": Lazy(),
    "max_drop": MaxDrop(),
    "overlap": Overlap(),
    "pyramidkv": PyramidKV(),
    "random": Random(),
    "recent": Recent(),
    "recompute": Recompute(),
    "refresh": Refresh(),
    "scissorhands": Scissorhands(),
    "slack": Slack(),
    "snapkv": SnapKV(),
    "start_recent": StartRecent(),
    "static_cache": StaticCache(),
    "tova": Tova(),
}
"""One default instance of every file in policies/."""

VALUES = {
    "beta": st.integers(1, 30),
    "bridge": st.integers(0, 6),
    "budget": st.integers(1, 6),
    "delta": st.integers(1, 9),
    "history": st.integers(1, 12),
    "kernel": st.sampled_from([3, 5, 7]),
    "max_drop": st.integers(1, 9),
    "overlap": st.integers(0, 6),
    "period": st.integers(1, 9),
    "period_max": st.integers(1, 9),
    "period_min": st.integers(1, 9),
    "placement": st.sampled_from(["tail", "middle", "sinks"]),
    "pool": st.sampled_from(["avg", "max"]),
    "positions": st.sampled_from(["in_cache", "original"]),
    "recent": st.integers(1, 5),
    "seed": st.integers(0, 3),
    "selector": st.sampled_from(["uniform", "structural", "uncertainty"]),
    "sinks": st.integers(0, 6),
    "slack": st.integers(0, 9),
    "span": st.integers(1, 9),
    "trigger": st.sampled_from(["overflow", "clock"]),
    "variant": st.sampled_from(["naive", "cooldown"]),
}
"""Values to try of hyper-parameters by name."""

TOKENS = 48

every_policy = pytest.mark.parametrize("name", DEFAULTS)
few = settings(max_examples=8, deadline=None)
drawn_signals = st.integers(0, 999).map(lambda seed: signals(seed, TOKENS))


def parameters_of(name: str) -> st.SearchStrategy[dict]:
    known = hyper_parameters(type(DEFAULTS[name]))
    return st.fixed_dictionaries({key: VALUES[key] for key in known})


def drawn(data: st.DataObject, name: str) -> tuple[EvictionPolicy, int | None, str | None]:
    """A policy with drawn parameters at a drawn cap that leaves it a window; its cap and cap_on."""
    parameters = data.draw(parameters_of(name))
    bare = type(DEFAULTS[name])(**parameters)
    bounded = [cap_on for cap_on in bare.budgets if cap_on != "none"]
    if not bounded:
        return bare, None, None
    cap_on = data.draw(st.sampled_from(bounded))
    least = bare.beside_window + bare.reserved + bare.overshoot + 1
    cap = data.draw(st.integers(least, least + 12))
    return build_policy(name, cap, cap_on, parameters), cap, cap_on


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
@given(data=st.data(), seen=drawn_signals)
def test_the_budget_is_never_exceeded(name, data, seen):
    """From any prefill that the policy could have, at any step, in the mean over the layers."""
    policy, cap, cap_on = drawn(data, name)
    prefill = data.draw(st.integers(min(policy.sinks, policy.capacity), policy.capacity))
    layers = [policy.for_layer(layer, LAYERS) for layer in range(LAYERS)]
    attended_in = []
    for one in layers:
        attended, kept = lengths(decided(one, seen, prefill), prefill)
        attended_in.append(attended)
        if cap is None:
            assert not prunes(attended, kept)
            return
        most = max((kept[step] for step in prunes(attended, kept)), default=0)
        assert most <= one.capacity + one.reserved
        # What is prefilled is one length for all layers, and may be too much for one of them.
        assert max(attended) <= max(one.peak, prefill + 1)
    assert sum(one.capacity + one.reserved for one in layers) <= cap * LAYERS
    if cap_on == "peak":
        assert max(map(sum, zip(*attended_in, strict=True))) <= cap * LAYERS


@every_policy
@few
@given(data=st.data(), seen=drawn_signals)
def test_sinks_and_the_newest_entry_are_never_lost(name, data, seen):
    policy, _, _ = drawn(data, name)
    for token, held in enumerate(decided(policy.for_layer(1, LAYERS), seen)):
        sinks = torch.arange(min(policy.sinks, token + 1)).expand(ROWS, HEADS, -1)
        assert torch.equal(held[..., : sinks.shape[-1]], sinks)
        if policy.in_order:
            assert (held[..., -1] == token).all()
            assert (held.diff(dim=-1) > 0).all()
        else:
            assert (held == token).sum() == ROWS * HEADS


@every_policy
@few
@given(data=st.data(), seen=drawn_signals)
def test_prunes_are_at_most_a_prune_period_apart(name, data, seen):
    policy, _, _ = drawn(data, name)
    steps = prunes(*lengths(decided(policy, seen), 0))
    assert max((after - before for before, after in pairwise(steps)), default=0) <= (
        policy.prune_period
    )


@every_policy
@few
@given(data=st.data(), seen=drawn_signals, other=drawn_signals)
def test_a_document_is_decided_alike_whatever_stands_beside_it_in_a_batch(name, data, seen, other):
    policy, _, _ = drawn(data, name)
    for held, beside in zip(
        decided(policy, seen, 8), decided(policy, seen.with_row(1, other), 8), strict=True
    ):
        assert torch.equal(held[0], beside[0])


@every_policy
@few
@given(data=st.data(), seen=drawn_signals, other=drawn_signals)
def test_nothing_passes_from_one_layer_or_document_to_another(name, data, seen, other):
    """One policy object, two layers in turn, after another document; and a fresh object, alone."""
    policy, _, _ = drawn(data, name)
    decided(policy, other, 8)
    torch.manual_seed(data.draw(st.integers(0, 9)))
    layers = [Driver(policy, seen, 0), Driver(policy, other, 1)]
    together = [[layer.decode() for layer in layers] for _ in range(TOKENS)]
    fresh = type(policy)(**vars(policy))
    for (held, _), alone in zip(together, decided(fresh, seen), strict=True):
        assert torch.equal(held, alone)


@every_policy
@few
@given(data=st.data(), seen=drawn_signals)
def test_lengths_alone_decide_how_many_entries_go(name, data, seen):
    """A simulated stream, which has no entries, has the lengths of a real one."""
    policy, _, _ = drawn(data, name)
    attended, kept = lengths(decided(policy, seen, 0), 0)
    simulated = simulate(policy, 0, TOKENS)
    if policy.reads == "entropy":  # but for this one, which may prune earlier, and not too early
        assert max(attended) <= simulated.peak_attended
        early = [attended[step] - policy.capacity for step in prunes(attended, kept)]
        assert min(early, default=policy.quiet) >= policy.quiet
    else:
        assert simulated.kept.tolist() == kept


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
