"""The plain policies hold what their definitions say: start_recent, recent, lazy, random, full."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.driver import HEADS, ROWS, decided, signals

from kvpareto.eviction.policies.full import Full
from kvpareto.eviction.policies.lazy import Lazy
from kvpareto.eviction.policies.random import Random
from kvpareto.eviction.policies.recent import Recent
from kvpareto.eviction.policies.recompute import Recompute
from kvpareto.eviction.policies.start_recent import StartRecent
from kvpareto.eviction.policy import Entries, EvictionPolicy, sinks_and_recent
from kvpareto.eviction.trajectory import simulate

SEEN = signals(0, 80)  # which none of them reads

few = settings(max_examples=20, deadline=None)


def strict(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    """The first S and the last W tokens of all that were seen."""
    recent = len(seen) - policy.window
    return [token for token in seen if token < policy.sinks or token >= recent]


def last(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    return seen[-policy.capacity :]


def everything(policy: EvictionPolicy, seen: list[int]) -> list[int]:
    return seen


@pytest.mark.parametrize(
    ("kind", "definition"),
    [(StartRecent, strict), (Recent, last), (Recompute, last), (Full, everything)],
)
@few
@given(sinks=st.integers(0, 6), window=st.integers(1, 20))
def test_strict_policies_hold_what_their_definition_says(
    kind: type[EvictionPolicy], definition: Callable, sinks: int, window: int
):
    own = {"sinks": sinks} if kind is StartRecent else {}
    policy = kind(capacity=sinks + window, **own)
    for token, held in enumerate(decided(policy, SEEN)):
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
    for step, held in enumerate(decided(policy, SEEN), start=1):
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
    for token, held in enumerate(decided(policy, SEEN)):
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
