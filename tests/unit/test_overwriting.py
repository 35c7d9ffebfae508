"""Overwriting slots: kept entries stay where they are, in memory and in position."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import SHAPES, random_ids, tiny_model
from transformers import AttentionInterface, DynamicCache, PreTrainedModel

from kvpareto.cache.layouts import EvictingCache
from kvpareto.cache.overwriting import OverwritingLayer
from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.measure.stream import Stream, new_cache
from kvpareto.models import families

FAMILIES = list(SHAPES)
ROWS, HEADS = 2, 2


def random_keep(length: int, drop: int, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Sorted indices of the `length - drop` entries that stay, drawn anew for each row and head."""
    draws = torch.rand(*shape, length, generator=torch.Generator().manual_seed(seed))
    return draws.argsort(-1)[..., drop:].sort(-1).values


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    dim = cos.shape[-1]
    part, rest = x[..., :dim], x[..., dim:]
    swapped = torch.cat([-part[..., dim // 2 :], part[..., : dim // 2]], dim=-1)
    return torch.cat([part * cos + swapped * sin, rest], dim=-1)


def _attention(module, query, key, value, mask, scaling, dropout=0.0, *, tables, positions, **_):
    at = positions[module.layer_idx]
    cos, sin = (table[0] for table in tables)
    key = _turned(key, cos[at], sin[at])
    query = _turned(query, cos[at.max()], sin[at.max()])
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    weights = (query @ key.transpose(-1, -2) * scaling).softmax(-1)
    return (weights @ value).transpose(1, 2), None


AttentionInterface.register("original_positions", _attention)


@torch.inference_mode()
def reference_logits(
    model: PreTrainedModel, ids: torch.Tensor, keeps: dict[int, list[torch.Tensor]]
) -> torch.Tensor:
    """The plain way, [rows, tokens, vocab]: raw keys beside their positions, one token at a time.

    `keeps` says, after so many tokens, which entries each layer keeps, [rows, heads, kept].
    """
    rotary = next(m for name, m in model.named_modules() if name.endswith("rotary_emb"))
    tables = rotary(torch.zeros(1, 1, 1), torch.arange(ids.shape[1])[None])
    rows, heads = ids.shape[0], families.kv_heads(model)
    positions = [torch.empty(rows, heads, 0, dtype=torch.int64)] * families.layer_count(model)
    plain = DynamicCache()
    steps = []
    model.set_attn_implementation("original_positions")
    try:
        for t in range(ids.shape[1]):
            now = torch.full((rows, heads, 1), t)
            positions = [torch.cat([at, now], dim=-1) for at in positions]
            output = model(
                input_ids=ids[:, t : t + 1],
                position_ids=torch.zeros(1, 1, dtype=torch.int64),
                past_key_values=plain,
                tables=tables,
                positions=positions,
            )
            steps.append(output.logits[:, -1])
            for index, keep in enumerate(keeps.get(t + 1, [])):
                layer = plain.layers[index]
                chosen = keep[..., None].expand(-1, -1, -1, layer.keys.shape[-1])
                layer.keys, layer.values = (x.gather(2, chosen) for x in (layer.keys, layer.values))
                positions[index] = positions[index].gather(-1, keep)
    finally:
        model.set_attn_implementation("sdpa")
    return torch.stack(steps, dim=1)


@settings(max_examples=30, deadline=None)
@given(
    family=st.sampled_from(FAMILIES),
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), min_size=3, max_size=14),
    slots=st.integers(1, 40),
    seed=st.integers(0, 99),
)
@torch.inference_mode()
def test_random_evictions_in_every_head_equal_the_plain_reference(family, steps, slots, seed):
    """Steps add some tokens at once, then drop some entries; the buffers grow where they must."""
    model = tiny_model(family)
    heads, layers = families.kv_heads(model), families.layer_count(model)
    cache = EvictingCache("overwrite", layers, families.rotary(model), slots)
    ids = random_ids(ROWS, sum(new for new, _ in steps), seed)
    got, keeps, seen = [], {}, 0
    for new, drop in steps:
        first = cache.next_position(new)
        assert first == seen
        part = ids[:, seen : seen + new]
        positions = torch.arange(first, first + new)[None]
        got.append(model(input_ids=part, position_ids=positions, past_key_values=cache).logits)
        seen += new
        length = cache.layers[0].length
        keeps[seen] = [
            random_keep(length, min(drop, length - 1), (ROWS, heads), seed + 7 * seen + layer)
            for layer in range(layers)
        ]
        if drop:
            cache.evict(keeps[seen])
    expected = reference_logits(model, ids, keeps)
    assert (torch.cat(got, dim=1) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_drives_it_as_it_drives_every_layout(family):
    model, ids = tiny_model(family), random_ids(ROWS, 60)
    policy = build_policy("start_recent", 23, "post_prune", {"sinks": 4})
    stream = Stream(model, policy, new_cache(model, "overwrite", policy, 24))
    with torch.inference_mode():
        logits = [stream.prefill(ids[:, :16])]
        logits += [stream.decode(ids[:, t : t + 1]) for t in range(16, 60)]
    kept = sinks_and_recent(24, 4, 1).expand(ROWS, families.kv_heads(model), -1)
    keeps = {t: [kept] * 3 for t in range(24, 61)}
    expected = reference_logits(model, ids, keeps)[:, 15:]
    assert (torch.stack(logits, dim=1) - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1  # the comparison has something to compare


class Marked:
    """A layer whose entries are marked with their token's index, beside lists of what it holds."""

    def __init__(self, slots: int) -> None:
        self.layer = OverwritingLayer(slots)
        self.held: list[list[int]] = [[] for _ in range(ROWS * HEADS)]
        self.seen = 0

    def add(self, new: int) -> None:
        self.layer.make_room(new, longest=0)
        marks = torch.arange(self.seen, self.seen + new).float()
        states = marks[:, None].expand(ROWS, HEADS, new, 3)
        self.layer.update(states, -states)
        self.seen += new
        self.held = [[*held, *marks.int().tolist()] for held in self.held]

    def evict(self, keep: torch.Tensor) -> None:
        self.layer.evict(keep, end=0)
        rows = keep.expand(ROWS, HEADS, -1).flatten(0, 1).tolist()
        self.held = [[held[i] for i in row] for held, row in zip(self.held, rows, strict=True)]

    def by_age(self) -> list[list[int]]:
        """What the keys say that the layer holds, oldest first."""
        layer = self.layer
        marks = layer.keys[..., 0]
        assert torch.equal(layer.values[..., 0], -marks)
        if layer.columns is None:
            marks = marks[..., : layer.length]
        else:
            marks = marks.gather(-1, layer.columns.expand(ROWS, HEADS, -1))
        return marks.flatten(0, 1).int().tolist()

    def returned(self) -> list[list[int]]:
        """What the layer returned last, sorted."""
        return self.layer.keys[..., 0].flatten(0, 1).sort(-1).values.int().tolist()


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 6), st.booleans()), min_size=1, max_size=25
    ),
    slots=st.integers(1, 20),
)
def test_it_returns_what_is_held_and_nothing_else_and_knows_the_age_of_each_entry(steps, slots):
    marked = Marked(slots)
    for seed, (new, drop, alike) in enumerate(steps):
        marked.add(new)
        assert marked.returned() == marked.held
        assert marked.by_age() == marked.held
        assert marked.layer.length == len(marked.held[0])
        assert marked.layer.end == marked.seen
        if new > 1:
            assert marked.layer.columns is None  # the newest stand last
        drop = min(drop, marked.layer.length - 1)
        if drop:
            shape = () if alike else (ROWS, HEADS)
            marked.evict(random_keep(marked.layer.length, drop, shape, seed))
            assert marked.by_age() == marked.held


def filled(slots: int, entries: int) -> Marked:
    marked = Marked(slots)
    marked.add(entries)
    # Fresh memory may hold NaN, which differs from itself.
    marked.layer._keys[:, :, entries:] = -1.0
    return marked


def changed_rows(layer: OverwritingLayer, before: torch.Tensor) -> list[int]:
    """How many slots of each head hold another key than before."""
    return (layer._keys != before).any(-1).sum(-1).flatten().tolist()


def test_one_eviction_a_token_costs_one_write_a_token_and_no_buffer_moves():
    marked = filled(13, 12)
    place = marked.layer.keys.data_ptr()
    for seed in range(60):
        before = marked.layer._keys.clone()
        marked.add(1)
        assert changed_rows(marked.layer, before) == [1] * 4
        before = marked.layer._keys.clone()
        marked.evict(random_keep(13, 1, (ROWS, HEADS), seed))
        assert torch.equal(marked.layer._keys, before)
        assert marked.layer.keys.data_ptr() == place
    assert marked.layer.slots == 13


@pytest.mark.parametrize("period", [2, 5, 9])
def test_a_prune_of_many_entries_writes_at_most_as_many_slots(period):
    marked = filled(12 + period, 12)
    place = marked.layer.keys.data_ptr()
    for seed in range(20):
        for step in range(period):
            before = marked.layer._keys.clone()
            marked.add(1)
            most = 1 if step or not seed else period
            assert max(changed_rows(marked.layer, before)) <= most
        marked.evict(random_keep(12 + period, period, (ROWS, HEADS), seed))
        assert marked.layer.length == 12
    assert marked.layer.keys.data_ptr() == place
    assert marked.layer.slots == 12 + period


def test_a_new_document_starts_over():
    marked = Marked(8)
    marked.add(8)
    marked.evict(random_keep(8, 3, (ROWS, HEADS), 0))
    marked.layer.reset()
    marked.held, marked.seen = [[] for _ in range(4)], 0
    assert marked.layer.length == marked.layer.end == 0
    marked.add(5)
    assert marked.layer.columns is None
    assert marked.by_age() == marked.held


def test_more_entries_than_slots_are_refused_when_nobody_made_room():
    layer = OverwritingLayer(4)
    with pytest.raises(RuntimeError, match="5 slots needed, 4 there"):
        layer.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2))
