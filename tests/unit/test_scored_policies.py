"""Policies that score entries keep what plain loops over tokens, from their definitions, keep."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.driver import GROUP, HEADS, ROWS, Signals, decided, signals

from kvpareto.eviction.policies.h2o import H2O
from kvpareto.eviction.policies.keydiff import KeyDiff
from kvpareto.eviction.policies.knorm import KNorm
from kvpareto.eviction.policies.pyramidkv import PyramidKV
from kvpareto.eviction.policies.scissorhands import Scissorhands
from kvpareto.eviction.policies.snapkv import SnapKV
from kvpareto.eviction.policies.tova import Tova
from kvpareto.eviction.policy import Entries
from kvpareto.eviction.scored import ScoredPolicy, best

Held = list[int]
History = list[tuple[int, list[Held]]]
"""Every query so far, with the tokens that each head held when it came."""

few = settings(max_examples=15, deadline=None)


class Layer:
    """One row of one layer, in Python numbers."""

    def __init__(self, seen: Signals, row: int) -> None:
        self.affinity = seen.affinity[row].tolist()
        self.keys = seen.keys[row].tolist()

    def shares(self, head: int, query: int, held: Held) -> list[dict[int, float]]:
        """For each query head of a key-value head: token -> probability."""
        visible = [token for token in held if token <= query]
        found = []
        for logits in self.affinity[head]:
            parts = [math.exp(logits[query][token]) for token in visible]
            found.append(dict(zip(visible, (part / sum(parts) for part in parts), strict=True)))
        return found


def h2o(policy: H2O, layer: Layer, head: int, history: History) -> dict[int, float]:
    """All attention since a token came, of all heads that share its key."""
    mass: Counter[int] = Counter()
    for query, held in history:
        for shares in layer.shares(head, query, held[head]):
            mass.update(shares)
    return mass


def scissorhands(policy: Scissorhands, layer: Layer, head: int, history: History) -> dict:
    """How often one of the last w queries gave a token more than 1 / t."""
    count: Counter[int] = Counter()
    for query, held in history[-policy.history :]:
        for shares in layer.shares(head, query, held[head]):
            count.update(token for token in shares if shares[token] > 1 / len(held[head]))
    return count


def tova(policy: Tova, layer: Layer, head: int, history: History) -> dict[int, float]:
    """Attention of the last query, the mean over all heads of the layer."""
    query, held = history[-1]
    mean: Counter[int] = Counter()
    for each in range(HEADS):
        for shares in layer.shares(each, query, held[each]):
            mean.update({token: share / (HEADS * GROUP) for token, share in shares.items()})
    return mean


def snapkv(policy: SnapKV, layer: Layer, head: int, history: History) -> dict[int, float]:
    """Attention of the last w queries to what is held now, summed, pooled over neighbours."""
    held = history[-1][1][head]
    votes: Counter[int] = Counter()
    for query, _ in history[-policy.recent :]:
        for shares in layer.shares(head, query, held):
            votes.update(shares)
    prefix = held[: -policy.recent]
    reach = policy.kernel // 2
    pooled = {}
    for index, token in enumerate(prefix):
        near = [votes[one] for one in prefix[max(0, index - reach) : index + reach + 1]]
        pooled[token] = max(near) if policy.pool == "max" else sum(near) / policy.kernel
    return pooled


def knorm(policy: KNorm, layer: Layer, head: int, history: History) -> dict[int, float]:
    held = history[-1][1][head]
    return {token: -round(math.hypot(*layer.keys[head][token]), 4) for token in held}


def keydiff(policy: KeyDiff, layer: Layer, head: int, history: History) -> dict[int, float]:
    """Minus the cosine with the mean of all keys, each of length one."""
    unit = {}
    for token in history[-1][1][head]:
        key = layer.keys[head][token]
        unit[token] = [part / math.hypot(*key) for part in key]
    mean = [sum(parts) / len(unit) for parts in zip(*unit.values(), strict=True)]
    return {
        token: -sum(a * b for a, b in zip(key, mean, strict=True)) / math.hypot(*mean)
        for token, key in unit.items()
    }


def expected(policy: ScoredPolicy, scores, seen: Signals, row: int) -> list[list[Held]]:
    """What each head of a row holds after each token: all but the lowest scores, when due."""
    layer = Layer(seen, row)
    held: list[Held] = [[] for _ in range(HEADS)]
    history: History = []
    after = []
    for token in range(seen.tokens):
        held = [[*one, token] for one in held]
        history.append((token, held))
        over = len(held[0]) - policy.capacity
        drop = over if over >= policy.period else 0
        if isinstance(policy, Scissorhands):
            drop = policy.capacity // 2 if over > 0 else 0
        if drop:
            left = []
            for head, one in enumerate(held):
                score = scores(policy, layer, head, history)
                recent = policy.recent or max(1, policy.capacity // 2)
                recent = min(recent, policy.capacity - policy.sinks)
                candidates = one[policy.sinks : len(one) - recent]
                # Of equal scores the older token stays.
                gone = sorted(candidates, key=lambda entry: (score.get(entry, 0), -entry))[:drop]
                left.append([entry for entry in one if entry not in gone])
            held = left
        after.append(held)
    return after


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        (H2O, h2o),
        (KeyDiff, keydiff),
        (KNorm, knorm),
        (Scissorhands, scissorhands),
        (SnapKV, snapkv),
        (Tova, tova),
    ],
)
@few
@given(data=st.data())
def test_a_policy_keeps_what_its_definition_says(kind, scores, data):
    sinks = data.draw(st.integers(0, 3))
    recent = data.draw(st.integers(0 if kind is H2O else 1, 4))  # 0: half of the capacity
    more = {"period": data.draw(st.integers(1, 4))}
    if kind is Scissorhands:
        more = {"history": data.draw(st.integers(1, 9))}
    if kind is SnapKV:
        more["kernel"] = data.draw(st.sampled_from([3, 5]))
        more["pool"] = data.draw(st.sampled_from(["avg", "max"]))
    least = 2 * (sinks + recent) if kind is Scissorhands else sinks + recent
    capacity = least + data.draw(st.integers(1, 6))
    policy = kind(capacity=capacity, sinks=sinks, recent=recent, **more)
    seen = signals(data.draw(st.integers(0, 999)), capacity + 14)
    for row in range(ROWS):
        for held, wanted in zip(
            decided(policy, seen), expected(policy, scores, seen, row), strict=True
        ):
            assert held[row].tolist() == wanted


@pytest.mark.parametrize("kind", [H2O, Scissorhands, Tova])
@few
@given(sinks=st.integers(0, 3), prefill=st.integers(1, 16), seed=st.integers(0, 999))
def test_a_prefill_counts_as_its_tokens_one_by_one(kind, sinks, prefill, seed):
    policy, seen = kind(capacity=16, sinks=sinks, recent=3), signals(seed, 40)
    for held, wanted in zip(
        decided(policy, seen, prefill), decided(policy, seen)[prefill:], strict=True
    ):
        assert torch.equal(held, wanted)


# Small cases by hand. One row, one key-value head.


def attention(*query_heads: list[list[float]]) -> torch.Tensor:
    """[1, 1, query heads, queries, entries]."""
    return torch.tensor(query_heads)[None, None]


def test_h2o_sums_over_queries_and_over_the_heads_that_share_a_key():
    policy = H2O(capacity=2, sinks=0, recent=1, period=1)
    one = [[1.0, 0.0, 0.0], [0.3, 0.7, 0.0], [0.1, 0.2, 0.7]]
    other = [[1.0, 0.0, 0.0], [0.1, 0.9, 0.0], [0.0, 0.9, 0.1]]
    memory = policy.remember(None, attention(one, other))
    assert torch.allclose(memory, torch.tensor([2.5, 2.7, 0.8]))
    entries = Entries(3, 1, 1, 0, 1, memory=memory)
    assert policy.keep(entries, 1).tolist() == [[[1, 2]]]


def test_tova_asks_the_last_query_alone():
    policy = Tova(capacity=2, sinks=0, recent=1, period=1)
    memory = policy.remember(
        torch.tensor([9.0, 0.0, 0.0])[None, None, None],
        attention([[0.8, 0.2, 0.0], [0.1, 0.3, 0.6]], [[0.9, 0.1, 0.0], [0.2, 0.1, 0.7]]),
    )
    assert torch.allclose(memory, torch.tensor([0.15, 0.2, 0.65]))
    assert policy.keep(Entries(3, 1, 1, 0, 1, memory=memory), 1).tolist() == [[[1, 2]]]


def test_scissorhands_counts_how_often_a_slot_got_more_than_an_equal_share():
    policy = Scissorhands(capacity=8, sinks=0, recent=1, history=2)
    one = [[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.35, 0.3, 0.35]]
    other = [[1.0, 0.0, 0.0], [0.4, 0.6, 0.0], [0.1, 0.5, 0.4]]
    memory = policy.remember(None, attention(one, other))
    # The first query is out of the history; of itself it got no more than 1/1.
    assert policy.score(Entries(3, 1, 1, 0, 1, memory=memory)).tolist() == [[[2, 2, 2]]]
    later = policy.remember(memory, attention([[0.0, 0.0, 1.0]]))
    assert policy.score(Entries(3, 1, 1, 0, 1, memory=later)).tolist() == [[[1, 1, 3]]]


@given(capacity=st.integers(24, 60))
@few
def test_scissorhands_drops_half_of_its_capacity_when_it_is_over_it(capacity):
    policy = Scissorhands(capacity=capacity, sinks=2, recent=9)
    lengths = [held.shape[-1] for held in decided(policy, signals(0, 120))]
    for before, after in zip([0, *lengths], lengths, strict=False):
        assert after == (capacity + 1 - capacity // 2 if before == capacity else before + 1)


@pytest.mark.parametrize(("pool", "kept"), [("max", [0, 4, 5, 9]), ("avg", [0, 1, 2, 9])])
def test_snapkv_pools_votes_over_neighbours(pool, kept):
    """Entry 5 has the most votes, 1 and 2 have more of them together."""
    policy = SnapKV(capacity=4, sinks=1, recent=1, kernel=3, pool=pool)
    votes = [[0.0, 0.2, 0.2, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.3]]
    entries = Entries(10, 1, 1, 0, 1, attention=attention(votes))
    assert policy.keep(entries, 6).tolist() == [[kept]]


def test_snapkv_lets_the_window_vote_but_not_be_voted_for():
    """The neighbour of the window gets nothing from it."""
    policy = SnapKV(capacity=3, sinks=0, recent=2, kernel=3, pool="max")
    votes = [[0.2, 0.0, 0.0, 0.8, 0.0], [0.2, 0.0, 0.0, 0.3, 0.5]]
    entries = Entries(5, 1, 1, 0, 1, attention=attention(votes))
    assert policy.keep(entries, 2).tolist() == [[[0, 3, 4]]]


@given(
    sinks=st.integers(0, 6),
    recent=st.integers(1, 9),
    more=st.integers(0, 300),
    beta=st.integers(1, 30),
    layers=st.integers(1, 40),
)
def test_pyramidkv_shares_the_budget_of_snapkv_linearly(sinks, recent, more, beta, layers):
    policy = PyramidKV(capacity=sinks + recent + more, sinks=sinks, recent=recent, beta=beta)
    capacities = [policy.for_layer(layer, layers).capacity for layer in range(layers)]
    assert sum(capacities) == layers * policy.capacity
    if layers == 1:
        return
    mean = policy.capacity - recent
    least = max(mean // beta, sinks)
    assert capacities[-1] == recent + least
    assert capacities[0] == recent + 2 * mean - least
    steps, fall = layers - 1, capacities[0] - capacities[-1]
    for layer, capacity in enumerate(capacities):
        # Half an entry from the straight line at most, in whole numbers.
        assert 2 * abs(steps * (capacities[0] - capacity) - layer * fall) <= steps


@few
@given(layer=st.integers(0, 4), seed=st.integers(0, 999))
def test_a_layer_of_pyramidkv_is_snapkv_with_a_capacity_of_its_own(layer, seed):
    pyramid = PyramidKV(capacity=16, sinks=2, recent=3, period=4, beta=5).for_layer(layer, 5)
    snap = SnapKV(capacity=pyramid.capacity, sinks=2, recent=3, period=4)
    seen = signals(seed, 40)
    for held, wanted in zip(decided(pyramid, seen), decided(snap, seen), strict=True):
        assert torch.equal(held, wanted)


def test_equal_keys_stay_by_age():
    """The same key, rotated for its position, has the same norm but for rounding."""
    policy = KNorm(capacity=4, sinks=0, recent=1, period=1)
    norms = torch.tensor([2.0, 1.0 + 1e-7, 1.0, 1.0 - 1e-7, 9.0])
    entries = Entries(5, 1, 1, 0, 1, keys=norms[None, None, :, None])
    assert policy.keep(entries, 2).tolist() == [[[1, 2, 4]]]


@few
@given(data=st.data())
def test_best_keeps_ends_and_the_highest_scores_between_them(data):
    length = data.draw(st.integers(2, 12))
    sinks = data.draw(st.integers(0, length - 1))
    kept = data.draw(st.integers(sinks + 1, length))
    spared = data.draw(st.integers(0, 12))
    score = data.draw(st.lists(st.integers(0, 3), min_size=length, max_size=length))
    newest = min(spared, kept - sinks)
    between = range(sinks, length - newest)
    chosen = sorted(between, key=lambda entry: (-score[entry], entry))[: kept - sinks - newest]
    wanted = [*range(sinks), *sorted(chosen), *range(length - newest, length)]
    assert best(torch.tensor([[score]]), sinks, spared, kept).tolist() == [[wanted]]
