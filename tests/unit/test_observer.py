"""What a policy is shown of a model: the right numbers, and beside the entries they belong to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
import torch
from tests.oracle import _rotate
from tests.tiny import SHAPES, VOCAB, random_ids, tiny_model

from kvpareto.cache.layouts import Layout
from kvpareto.cache.observer import Observer
from kvpareto.eviction.policies.adaptive_entropy import AdaptiveEntropy
from kvpareto.eviction.policies.h2o import H2O
from kvpareto.eviction.policies.random import Random
from kvpareto.eviction.policies.snapkv import SnapKV
from kvpareto.eviction.policy import Clock, Entries, EvictionPolicy
from kvpareto.measure.stream import Stream, new_cache
from kvpareto.models import families

STRUCTURAL = torch.arange(VOCAB) % 5 == 0
LAYERS = 3


@contextmanager
def streaming(
    family: str, policy: EvictionPolicy, layout: Layout = "soft_ring"
) -> Iterator[Stream]:
    """A stream over a tiny model, with the attention function that it needs."""
    model = tiny_model(family)
    cache = new_cache(model, layout, policy, policy.peak + 1)
    stream = Stream(model, policy, cache, structural=STRUCTURAL)
    plain = model.config._attn_implementation
    model.set_attn_implementation(stream.attention)
    try:
        with torch.inference_mode():
            yield stream
    finally:
        model.set_attn_implementation(plain)


def decode(stream: Stream, ids: torch.Tensor, prefill: int = 1) -> torch.Tensor:
    """Logits after every token from the prefill's last on, [rows, tokens, vocab]."""
    steps = [stream.prefill(ids[:, :prefill])]
    steps += [stream.decode(ids[:, t : t + 1]) for t in range(prefill, ids.shape[1])]
    return torch.stack(steps, dim=1)


class Held:
    """The tokens behind the entries of every layer, followed through the policy's decisions."""

    def __init__(self, rows: int, heads: int) -> None:
        self.layers = [torch.empty(rows, heads, 0, dtype=torch.int64) for _ in range(LAYERS)]
        self.seen = [0] * LAYERS

    def before(self, entries: Entries) -> torch.Tensor:
        """[rows, heads, length], at the moment of a decision."""
        held = self.layers[entries.layer]
        first = self.seen[entries.layer]
        self.seen[entries.layer] = first + entries.length - held.shape[-1]
        new = torch.arange(first, self.seen[entries.layer]).expand(*held.shape[:2], -1)
        self.layers[entries.layer] = torch.cat([held, new], dim=-1)
        return self.layers[entries.layer]

    def keep(self, layer: int, kept: torch.Tensor) -> None:
        self.layers[layer] = self.layers[layer].gather(-1, kept)


# Attention.


@dataclass(frozen=True)
class Witness(H2O):
    """Writes down what it is given."""

    given: list[tuple[torch.Tensor | None, torch.Tensor]] = field(default_factory=list)

    def remember(self, memory: torch.Tensor | None, attention: torch.Tensor) -> torch.Tensor:
        self.given.append((memory, attention))
        return super().remember(memory, attention)


@pytest.mark.parametrize("family", SHAPES)
def test_the_probabilities_of_a_prefill_are_those_of_eager_attention(family):
    ids = random_ids(2, 80)
    policy = Witness(capacity=90)
    with streaming(family, policy) as stream:
        stream.prefill(ids)
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            expected = model(input_ids=ids, output_attentions=True).attentions
    finally:
        model.set_attn_implementation("sdpa")
    done = 0
    while policy.given:  # a few queries at a time
        for layer in range(LAYERS):
            _, attention = policy.given.pop(0)
            part = expected[layer][:, :, done : done + attention.shape[3], : attention.shape[4]]
            assert (attention.flatten(1, 2) - part).abs().max() < 1e-5
        done += attention.shape[3]
    assert done == 80


def alone(policy: EvictionPolicy) -> Observer:
    """An observer of two layers without a model."""
    cache = SimpleNamespace(layers=[SimpleNamespace(columns=None)] * 2)
    return Observer([policy] * 2, cache, None, None)


def test_memory_comes_back_without_the_evicted_and_with_zeros_for_the_new():
    policy = Witness(capacity=4)
    observer = alone(policy)
    first = torch.rand(1, 2, 2, 1, 4)
    observer.see(0, torch.empty(0), first)
    observer.forget(0, torch.tensor([[[0, 2, 3], [1, 2, 3]]]))
    observer.see(0, torch.empty(0), torch.rand(1, 2, 2, 1, 5))
    memory, _ = policy.given[-1]
    sums = first.sum(dim=(2, 3))
    expected = torch.stack([sums[0, 0, [0, 2, 3]], sums[0, 1, [1, 2, 3]]])
    assert torch.equal(memory[0, :, 0], torch.nn.functional.pad(expected, (0, 2)))


def test_a_layer_does_not_see_what_others_saw_or_lost():
    policy = Witness(capacity=4)
    observer = alone(policy)
    weights = torch.rand(2, 1, 1, 2, 1, 4)
    for layer in range(2):
        observer.see(layer, torch.empty(0), weights[layer])
    observer.forget(1, torch.tensor([0, 3]))
    of_layer = [
        observer.with_records(Entries(length, 1, 1, layer, 1)).memory
        for layer, length in enumerate((4, 2))
    ]
    assert torch.equal(of_layer[0], policy.remember(None, weights[0]))
    assert torch.equal(of_layer[1], policy.remember(None, weights[1])[..., [0, 3]])
    observer.reset()
    assert observer.with_records(Entries(4, 1, 1, 0, 1)).memory is None


# Queries and keys.


@contextmanager
def raw_projections(family: str) -> Iterator[tuple[list[list], list[list]]]:
    """Queries and keys of every layer and forward pass before RoPE, [rows, new, heads, dim]."""
    model = tiny_model(family)
    queries: list[list] = [[] for _ in range(LAYERS)]
    keys: list[list] = [[] for _ in range(LAYERS)]
    heads, kv_heads = model.config.num_attention_heads, families.kv_heads(model)

    def split(into: list, count: int, part: slice):
        return lambda module, given, out: into.append(out.unflatten(-1, (count, -1))[..., part])

    handles = []
    for layer in range(LAYERS):
        if family == "gpt_neox":
            both = model.gpt_neox.layers[layer].attention.query_key_value
            dim = both.out_features // heads // 3
            hooks = [
                (both, split(queries[layer], heads, slice(dim))),
                (both, split(keys[layer], heads, slice(dim, 2 * dim))),
            ]
        else:
            attention = model.model.layers[layer].self_attn
            hooks = [
                (attention.q_proj, split(queries[layer], heads, slice(None))),
                (attention.k_proj, split(keys[layer], kv_heads, slice(None))),
            ]
        handles += [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield queries, keys
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Watched(SnapKV):
    """Writes down what it is shown and what it answers."""

    decisions: list[tuple[Entries, torch.Tensor]] = field(default_factory=list)

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        kept = super().keep(entries, drop)
        self.decisions.append((entries, kept))
        return kept


@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("layout", ["compact", "soft_ring"])
def test_the_last_queries_look_at_keys_where_they_stand_after_prunes(family, layout):
    """Against raw keys and queries, rotated for their places in the cache by the model's tables."""
    policy = Watched(capacity=16, sinks=2, period=5, recent=4, kernel=3)
    rotary = next(m for name, m in tiny_model(family).named_modules() if "rotary_emb" in name)
    cos, sin = (table[0] for table in rotary(torch.zeros(1), torch.arange(21)[None]))
    with streaming(family, policy, layout) as stream, raw_projections(family) as (queries, keys):
        decode(stream, random_ids(2, 60), prefill=19)  # some of the first voters
    held = Held(2, stream.kv_heads)
    assert len(policy.decisions) == 8 * LAYERS
    for entries, kept in policy.decisions:
        tokens = held.before(entries)
        key = torch.cat(keys[entries.layer], dim=1).transpose(1, 2)
        key = key.gather(2, tokens[..., None].expand(-1, -1, -1, key.shape[-1]))
        now = held.seen[entries.layer]
        query = torch.cat(queries[entries.layer], dim=1).transpose(1, 2)[:, :, now - 4 : now]
        key = _rotate(key, cos[:21], sin[:21])
        query = _rotate(query, cos[17:21], sin[17:21])
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        scores += torch.full((4, 21), float("-inf")).triu(18)
        assert (entries.attention.flatten(1, 2) - scores.softmax(-1)).abs().max() < 1e-5
        held.keep(entries.layer, kept)


@dataclass(frozen=True)
class Scattered(Random):
    """Evicts other entries in every head, and writes down what it is shown."""

    reading: str = "keys"
    decisions: list[tuple[Entries, torch.Tensor]] = field(default_factory=list)

    @property
    def reads(self):
        return self.reading

    def keep(self, entries: Entries, drop: int) -> torch.Tensor:
        kept = super().keep(entries, drop)
        if entries.keys is not None:  # a view of the cache
            entries = replace(entries, keys=entries.keys.clone())
        self.decisions.append((entries, kept))
        return kept


@pytest.mark.parametrize("layout", ["compact", "soft_ring", "overwrite"])
def test_keys_are_shown_by_age(layout):
    """Rotation leaves their lengths as they are."""
    policy = Scattered(capacity=16, sinks=2, period=5)
    with streaming("llama", policy, layout) as stream, raw_projections("llama") as (_, keys):
        decode(stream, random_ids(2, 60))
    held = Held(2, stream.kv_heads)
    for entries, kept in policy.decisions:
        norms = torch.cat(keys[entries.layer], dim=1).norm(dim=-1).transpose(1, 2)
        expected = norms.gather(-1, held.before(entries))
        assert (entries.keys.norm(dim=-1) - expected).abs().max() < 1e-4
        held.keep(entries.layer, kept)


# Marks of tokens.


def entropies(logits: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


@pytest.mark.parametrize("reading", ["structure", "uncertainty"])
def test_marks_of_tokens_stay_beside_their_entries(reading):
    policy, ids = Scattered(capacity=16, sinks=2, period=5, reading=reading), random_ids(2, 60)
    with streaming("llama", policy) as stream:
        uncertain = entropies(decode(stream, ids))
    # A token is as uncertain as its prediction, which came with the token before.
    before = torch.cat([torch.zeros(2, 1), uncertain[:, :-1]], dim=1)
    expected = STRUCTURAL[ids] if reading == "structure" else before
    held = Held(2, stream.kv_heads)
    for entries, kept in policy.decisions:
        shown = entries.structural if reading == "structure" else entries.uncertainty
        tokens = held.before(entries)
        wanted = expected[:, None].expand(-1, stream.kv_heads, -1).gather(-1, tokens)
        assert torch.allclose(shown.expand_as(wanted).float(), wanted.float(), atol=1e-5)
        held.keep(entries.layer, kept)


@dataclass(frozen=True)
class Listener(AdaptiveEntropy):
    """Writes down the entropies that it is told of."""

    told: list[list[float]] = field(default_factory=list)

    def drop(self, clock: Clock) -> int:
        self.told.append(list(clock.entropies))
        return super().drop(clock)


def test_a_policy_is_told_the_entropy_of_every_prediction_so_far():
    policy = Listener(capacity=16, period_min=2, period_max=6)
    with streaming("llama", policy) as stream:
        expected = entropies(decode(stream, random_ids(1, 40)))[0]
    for step, told in enumerate(policy.told, start=2):
        assert torch.allclose(torch.tensor(told), expected[:step], atol=1e-5)


def test_a_policy_that_reads_structure_needs_to_know_what_it_is():
    policy = Scattered(capacity=16, reading="structure")
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="pass the table of structural tokens"):
        Stream(model, policy, new_cache(model, "compact", policy, 20))
