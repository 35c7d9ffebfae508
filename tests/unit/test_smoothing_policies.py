"""Policies that smooth the prune: when it comes, how much goes, and what is saved from it."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.driver import HEADS, ROWS, Signals, decided, signals

from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policies.adaptive_entropy import AdaptiveEntropy
from kvpareto.eviction.policies.adaptive_slack import AdaptiveSlack
from kvpareto.eviction.policies.bridge import Bridge
from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.max_drop import MaxDrop
from kvpareto.eviction.policies.refresh import Refresh
from kvpareto.eviction.policies.slack import Slack
from kvpareto.eviction.policy import Clock, EvictionPolicy
from kvpareto.eviction.trajectory import Trajectory, simulate

SEEN = signals(0, 70)
STEPS = 200

few = settings(max_examples=25, deadline=None)
sinks_, window_, period_ = st.integers(0, 5), st.integers(1, 20), st.integers(1, 12)
bounded = st.sampled_from(["post_prune", "peak"])


def alike(one: EvictionPolicy, other: EvictionPolicy) -> bool:
    """Whether two policies hold the same tokens, at all times."""
    return all(map(torch.equal, decided(one, SEEN), decided(other, SEEN)))


def gaps(trajectory: Trajectory) -> set[int]:
    """Tokens from one prune to the next, once pruning has begun."""
    steps = trajectory.dropped.nonzero()[0].tolist()
    return {after - before for before, after in pairwise(steps)}


def same_in_all_heads(held: torch.Tensor, tokens: list[int]) -> bool:
    return torch.equal(held, torch.tensor(tokens).expand(ROWS, HEADS, -1))


# Other names for lazy.


@few
@given(sinks=sinks_, window=window_, period=period_, slack=st.integers(0, 12), cap_on=bounded)
def test_slack_is_lazy_with_a_smaller_window(sinks, window, period, slack, cap_on):
    cap = sinks + window + max(slack, period)
    policy = build_policy("slack", cap, cap_on, {"sinks": sinks, "period": period, "slack": slack})
    assert policy.capacity == cap - (slack if cap_on == "post_prune" else max(slack, period))
    assert alike(policy, Lazy(capacity=policy.capacity, sinks=sinks, period=period))


@few
@given(sinks=sinks_, window=window_, period=period_, overlap=st.integers(0, 9), cap_on=bounded)
def test_overlap_inside_a_cap_is_lazy(sinks, window, period, overlap, cap_on):
    own = {"sinks": sinks, "period": period}
    cap = sinks + overlap + window + period
    policy = build_policy("overlap", cap, cap_on, {**own, "overlap": overlap})
    lazy = build_policy("lazy", cap, cap_on, own)
    assert (policy.capacity, policy.window + overlap) == (lazy.capacity, lazy.window)
    assert alike(policy, lazy)


@few
@given(sinks=sinks_, window=window_, period=period_, overlap=st.integers(0, 9))
def test_overlap_without_a_cap_is_lazy_with_a_longer_window(sinks, window, period, overlap):
    own = {"sinks": sinks, "period": period}
    policy = build_policy("overlap", 1, "none", {**own, "overlap": overlap}, window=window)
    assert alike(policy, build_policy("lazy", 1, "none", own, window=window + overlap))


@few
@given(sinks=sinks_, window=window_, delta=st.integers(1, 12))
def test_adaptive_slack_is_lazy_with_a_period_of_one_more(sinks, window, delta):
    policy = AdaptiveSlack(capacity=sinks + window, sinks=sinks, delta=delta)
    assert alike(policy, Lazy(capacity=sinks + window, sinks=sinks, period=delta + 1))


# How much goes at once.


@st.composite
def staged(draw, variant: str, periods: tuple[int, int] = (1, 12), **own) -> MaxDrop:
    """A policy of one variant; `own` has strategies, given the period, of some parameters."""
    period = draw(st.integers(*periods))
    parameters = {"slack": st.integers(0, 15), "max_drop": st.integers(1, 15)}
    parameters |= {name: strategy(period) for name, strategy in own.items()}
    drawn = {name: draw(strategy) for name, strategy in parameters.items()}
    bare = MaxDrop(sinks=draw(sinks_), period=period, variant=variant, **drawn)
    return replace(bare, capacity=bare.beside_window + draw(window_))


@pytest.mark.parametrize("variant", ["naive", "cooldown"])
@few
@given(data=st.data())
def test_max_drop_drops_delta_or_as_much_as_the_hard_limit_wants(variant, data):
    policy = data.draw(staged(variant))
    soft, hard = policy.capacity, policy.capacity + policy.slack
    tokens: list[int] = []
    since = 0
    for token, held in enumerate(decided(policy, SEEN)):
        tokens.append(token)
        since += 1
        if variant == "naive":
            due, most_left = len(tokens) >= soft + policy.period, hard
        else:
            cooled = since >= policy.period and len(tokens) > soft
            due, most_left = len(tokens) >= hard or cooled, hard - policy.period
        if due:
            gone = min(policy.max_drop, len(tokens) - soft)
            gone = max(gone, len(tokens) - most_left)
            del tokens[policy.sinks : policy.sinks + gone]
            since = 0
        assert same_in_all_heads(held, tokens)


@few
@given(policy=staged("naive", max_drop=lambda period: st.integers(period, 15)))
def test_a_max_drop_that_reaches_the_period_changes_nothing(policy):
    """Hypothesis H2 of the design notes: such an arm is `slack` by another name."""
    slack = Slack(policy.capacity, policy.sinks, policy.period, policy.slack)
    assert simulate(policy, policy.capacity, STEPS).digest == (
        simulate(slack, policy.capacity, STEPS).digest
    )
    assert (policy.reserved, policy.peak) == (slack.reserved, slack.peak)


@few
@given(
    policy=staged(
        "naive",
        periods=(2, 12),
        slack=lambda period: st.integers(1, 15),
        max_drop=lambda period: st.integers(1, period - 1),
    )
)
def test_a_naive_max_drop_below_the_period_prunes_more_often(policy):
    """The frequency trap: what is left over the capacity brings the next prune sooner."""
    trajectory = simulate(policy, policy.capacity, STEPS)
    assert gaps(trajectory) == {max(policy.max_drop, policy.period - policy.slack)}
    slack = Slack(policy.capacity, policy.sinks, policy.period, policy.slack)
    assert (trajectory.dropped > 0).sum() > (
        simulate(slack, policy.capacity, STEPS).dropped > 0
    ).sum()


@few
@given(policy=staged("cooldown"))
def test_a_cooling_max_drop_never_prunes_within_a_period(policy):
    trajectory = simulate(policy, policy.capacity, STEPS)
    assert gaps(trajectory) == {policy.period}
    assert trajectory.post_prune <= policy.capacity + policy.slack - policy.period
    assert trajectory.peak_attended <= policy.capacity + max(policy.slack, 1)


# What is saved from a prune.


def chosen(policy: Refresh, candidates: list[int], seen: Signals) -> list[int]:
    """B of the candidates, in their order."""
    if policy.selector == "uniform":
        last = len(candidates) - 1
        return [candidates[i * last // max(1, policy.budget - 1)] for i in range(policy.budget)]
    marks = seen.structural if policy.selector == "structural" else seen.uncertainty
    ranked = sorted(range(len(candidates)), key=lambda i: (-float(marks[0, candidates[i]]), i))
    return [candidates[i] for i in sorted(ranked[: policy.budget])]


def refreshed(policy: Refresh, held: list[int], seen: Signals) -> list[int]:
    """What is left of `held`, in the order of the cache."""
    sinks, rest = held[: policy.sinks], held[policy.sinks :]
    if policy.placement == "tail":
        leaving, window = rest[: -policy.window], rest[-policy.window :]
        return sinks + window + chosen(policy, leaving, seen)
    earlier, rest = rest[: policy.budget], rest[policy.budget :]
    leaving, window = rest[: -policy.window], rest[-policy.window :]
    if policy.placement == "middle":
        # Those of the last prune make way; as many stay as there are too few to replace them.
        earlier = earlier[min(policy.budget, len(leaving)) :]
    return sinks + chosen(policy, earlier + leaving, seen) + window


@pytest.mark.parametrize("selector", ["uniform", "structural", "uncertainty"])
@pytest.mark.parametrize("placement", ["tail", "middle", "sinks"])
@settings(max_examples=12, deadline=None)
@given(
    sinks=sinks_, window=window_, period=period_, budget=st.integers(1, 6), seed=st.integers(0, 99)
)
def test_refresh_saves_b_of_the_tokens_that_leave_the_window(
    selector, placement, sinks, window, period, budget, seed
):
    policy = Refresh(sinks + budget + window, sinks, period, budget, selector, placement)
    assert policy.window == window
    seen = signals(seed, 60)
    tokens: list[int] = []
    for token, held in enumerate(decided(policy, seen)):
        tokens.append(token)
        if len(tokens) >= policy.capacity + period:
            tokens = refreshed(policy, tokens, seen)
        assert held[0, 0].tolist() == tokens


def test_refreshed_tokens_stand_where_their_placement_says():
    order = {}
    for placement in ("tail", "middle", "sinks"):
        policy = Refresh(capacity=8, sinks=2, period=4, budget=2, placement=placement)
        order[placement] = decided(policy, signals(0, 16))[-1][0, 0].tolist()
    assert order == {
        "tail": [0, 1, 12, 13, 14, 15, 8, 7],  # 7 was saved by the first prune, 8 came later
        "middle": [0, 1, 8, 11, 12, 13, 14, 15],
        "sinks": [0, 1, 2, 11, 12, 13, 14, 15],
    }


@few
@given(sinks=sinks_, window=window_, period=period_, bridge=st.integers(0, 8))
def test_a_bridge_is_the_oldest_of_what_leaves_and_replaces_the_last_one(
    sinks, window, period, bridge
):
    policy = Bridge(sinks + bridge + window, sinks, period, bridge)
    tokens: list[int] = []
    for token, held in enumerate(decided(policy, SEEN)):
        tokens.append(token)
        if len(tokens) >= policy.capacity + period:
            first, last, rest = tokens[:sinks], tokens[sinks:][:bridge], tokens[sinks + bridge :]
            leaving = rest[:-window]
            # A short period does not fill the bridge: the newest of the last one stay.
            kept = last[min(bridge, len(leaving)) :] + leaving[:bridge]
            tokens = first + kept + rest[-window:]
        assert same_in_all_heads(held, tokens)


@few
@given(sinks=sinks_, window=window_, period=period_)
def test_an_empty_bridge_is_lazy(sinks, window, period):
    assert alike(
        Bridge(sinks + window, sinks, period, bridge=0), Lazy(sinks + window, sinks, period)
    )


# When it comes.


@few
@given(
    window=window_,
    least=st.integers(1, 8),
    more=st.integers(0, 8),
    span=st.integers(1, 9),
    seed=st.integers(0, 999),
)
def test_adaptive_entropy_prunes_early_when_it_is_above_its_mean(window, least, more, span, seed):
    policy = AdaptiveEntropy(4 + window, 4, period_min=least, period_max=least + more, span=span)
    seen = signals(seed, 70)
    tokens: list[int] = []
    for token, held in enumerate(decided(policy, seen)):
        tokens.append(token)
        over = len(tokens) - policy.capacity
        far = seen.entropies[: token + 1]
        near = far[-span:]
        high = sum(near) / len(near) > sum(far) / len(far)
        if over >= least and (high or over >= least + more):
            tokens = tokens[:4] + tokens[-window:]
        assert same_in_all_heads(held, tokens)


@pytest.mark.parametrize(("trend", "period"), [(0.1, 3), (-0.1, 9)])
def test_rising_entropy_prunes_at_r_min_and_falling_entropy_at_r_max(trend, period):
    policy = AdaptiveEntropy(capacity=10, period_min=3, period_max=9, span=2)
    entropies, length, steps = [], 10, []
    for step in range(1, 60):
        entropies.append(10 + trend * step)
        length += 1
        dropped = policy.drop(Clock(step, length, 0, entropies))
        steps += [step] if dropped else []
        length -= dropped
    assert steps == list(range(period, 60, period))
