"""The ring: strict start_recent without a copy, exact at any length of the stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle import oracle_logits
from tests.tiny import CONTEXT, SHAPES, VOCAB, random_ids, tiny_model
from torch._dynamo.testing import CompileCounterWithBackend
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, PreTrainedModel

from kvpareto.attention.rope import Rotary
from kvpareto.cache.layouts import EvictingCache
from kvpareto.cache.ring import RING_ATTENTION, RingLayer
from kvpareto.cache.ring_clock import RingClock
from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policy import sinks_and_recent
from kvpareto.measure.stream import Stream, new_cache
from kvpareto.models import families

FAMILIES = list(SHAPES)
HUNDRED_MILLION = 10**8


@cache
def small_model(family: str, layers: int = 2, rotated: float | None = None) -> PreTrainedModel:
    """Smaller than `tiny_model`; `rotated` is the rotary part of GPT-NeoX's head dimensions."""
    torch.manual_seed(0)
    shape = dict(SHAPES[family])
    if rotated is not None:
        shape["rope_parameters"] = shape["rope_parameters"] | {"partial_rotary_factor": rotated}
    config = AutoConfig.for_model(
        family,
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=layers,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        **shape,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()


def new_ring(model: PreTrainedModel, cap: int, sinks: int) -> EvictingCache:
    layers, rotary = families.layer_count(model), families.rotary(model)
    return EvictingCache("ring", layers, rotary, cap, sinks=sinks)


@contextmanager
def under(model: PreTrainedModel, attention: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(attention)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def feed(model: PreTrainedModel, ring: EvictingCache, ids: torch.Tensor) -> torch.Tensor:
    """One forward pass, and the eviction after it as a stream asks for it: [batch, new, vocab]."""
    first = ring.next_position(ids.shape[1])
    positions = torch.arange(first, first + ids.shape[1])[None]
    logits = model(
        input_ids=ids, position_ids=positions, past_key_values=ring, use_cache=True, **ring.options
    ).logits
    cap, sinks = ring.layers[0].slots, ring.layers[0].clock.sinks
    if ring.layers[0].length == cap:
        ring.evict([sinks_and_recent(cap, sinks, 1)] * len(ring.layers))
    return logits


@torch.inference_mode()
def ring_logits(
    model: PreTrainedModel, ring: EvictingCache, ids: torch.Tensor, prefill: tuple[int, ...] = ()
) -> torch.Tensor:
    """Logits after every token: first forward passes of `prefill` tokens, then one by one."""
    parts = ids.split([*prefill, *[1] * (ids.shape[1] - sum(prefill))], dim=1)
    with under(model, RING_ATTENTION):
        return torch.cat([feed(model, ring, part) for part in parts], dim=1)


def strict(cap: int, sinks: int):
    """The oracle's evictions: `cap` attended, so cap - 1 are left after each token."""

    def keep(step: int, length: int):
        return sinks_and_recent(length, sinks, 1) if length == cap else None

    return keep


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefill", [(), (17,), (24,), (5, 1, 12)], ids=str)
def test_the_ring_equals_the_oracle_while_it_fills_and_many_times_around(family, prefill):
    model, ids = tiny_model(family), random_ids(2, 110)
    expected = oracle_logits(model, ids, strict(24, 4))
    got = ring_logits(model, new_ring(model, 24, 4), ids, prefill)
    assert (got - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1  # the comparison has something to compare


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_ring_equals_the_oracle_at_any_cap_sinks_and_rotary_part(data):
    family = data.draw(st.sampled_from(FAMILIES))
    rotated = data.draw(st.sampled_from([0.25, 0.5, 1.0])) if family == "gpt_neox" else None
    sinks = data.draw(st.integers(0, 5))
    cap = data.draw(st.integers(sinks + 1, sinks + 12))
    prefill = data.draw(st.integers(1, cap))
    turns = data.draw(st.sampled_from([0, 1, HUNDRED_MILLION // (cap - sinks)]))
    model, ids = small_model(family, rotated=rotated), random_ids(1, 3 * cap + 4, cap)
    ring = new_ring(model, cap, sinks)
    ring.layers[0].clock.position.fill_(turns * (cap - sinks))
    expected = oracle_logits(model, ids, strict(cap, sinks))
    assert (ring_logits(model, ring, ids, (prefill,)) - expected).abs().max() < 1e-4


def last_that_matters(
    ids: torch.Tensor, cap: int, sinks: int, layers: int, count: int
) -> torch.Tensor:
    """The tokens on which the last `count` logits of strict start_recent depend, and no others.

    A query looks back at the sinks and cap - sinks - 1 tokens, in every layer anew.
    """
    return torch.cat([ids[:, :sinks], ids[:, -layers * (cap - sinks - 1) - count :]], dim=1)


def test_strict_start_recent_depends_on_sinks_and_one_window_per_layer():
    model, ids = small_model("llama"), random_ids(1, 150)
    whole = oracle_logits(model, ids, strict(24, 4))[:, -20:]
    short = last_that_matters(ids, 24, 4, 2, 20)
    assert torch.equal(oracle_logits(model, short, strict(24, 4))[:, -20:], whole)
    other = torch.cat([short[:, :4], 96 - short[:, 4:5], short[:, 5:]], dim=1)
    assert not torch.equal(oracle_logits(model, other, strict(24, 4))[:, -20:], whole)


@torch.inference_mode()
def raw_entries(model: PreTrainedModel, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a one-layer model, where they depend on nothing but their token."""
    parts = []
    for part in ids.split(500, dim=1):
        plain = DynamicCache()
        model(input_ids=part, position_ids=torch.zeros_like(part), past_key_values=plain)
        parts.append((plain.layers[0].keys, plain.layers[0].values))
    keys, values = zip(*parts, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ring_equals_the_oracle_10_000_steps_past_the_cap(family):
    """Every step is the ring's own; the model is asked for the logits of a few stretches only."""
    cap, sinks, count = 24, 4, 20
    model, ids = small_model(family, layers=1), random_ids(1, cap + 10_000)
    keys, values = raw_entries(model, ids)
    ring = new_ring(model, cap, sinks)
    (layer,) = ring.layers
    oldest = sinks_and_recent(cap, sinks, 1)
    done = 0
    for end in (cap + 1_000, cap + 10_000):
        for t in range(done, end - count):
            add(layer, keys[:, :, t : t + 1], values[:, :, t : t + 1])
            if layer.length == cap:
                layer.evict(oldest, end=0)
        got = ring_logits(model, ring, ids[:, end - count : end])
        short = last_that_matters(ids[:, :end], cap, sinks, 1, count)
        expected = oracle_logits(model, short, strict(cap, sinks))[:, -count:]
        assert (got - expected).abs().max() < 1e-4
        done = end


def add(layer: RingLayer, keys: torch.Tensor, values: torch.Tensor) -> None:
    layer.update(keys, values)
    layer.clock.query_due = False  # nobody asks


@pytest.mark.parametrize("family", FAMILIES)
def test_the_ring_is_exact_at_an_offset_of_a_hundred_million_tokens(family):
    model, ids = small_model(family), random_ids(2, 80)
    ring = new_ring(model, 24, 4)
    ring.layers[0].clock.position.fill_(HUNDRED_MILLION)
    expected = oracle_logits(model, ids, strict(24, 4))
    assert (ring_logits(model, ring, ids, (24,)) - expected).abs().max() < 1e-4
    assert ring.layers[0].clock.position.item() == HUNDRED_MILLION + 80


def test_float32_angles_would_not_do():
    model, ids = small_model("llama"), random_ids(1, 80)
    ring = new_ring(model, 24, 4)
    clock = ring.layers[0].clock
    clock.position.fill_(HUNDRED_MILLION)
    clock._frequency = clock._frequency.float()
    expected = oracle_logits(model, ids, strict(24, 4))
    assert (ring_logits(model, ring, ids) - expected).abs().max() > 1e-1


def test_a_sink_one_position_off_would_be_noticed():
    model, ids = small_model("llama"), random_ids(1, 40)
    ring = new_ring(model, 24, 4)
    ring_logits(model, ring, ids[:, :24], (24,))
    ring.layers[0].clock._lag[:4] += 1
    expected = oracle_logits(model, ids, strict(24, 4))[:, 24:]
    assert (ring_logits(model, ring, ids[:, 24:]) - expected).abs().max() > 1e-2


def test_scaled_cosines_are_part_of_the_key_and_do_not_disturb_the_ring():
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    torch.manual_seed(0)
    config = small_model("llama").config.to_dict() | {"rope_parameters": yarn}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config)).eval()
    assert model.model.rotary_emb.attention_scaling != 1
    ids = random_ids(1, 80)
    assert (streamed(model, "ring", ids) - streamed(model, "compact", ids)).abs().max() < 1e-4


@torch.inference_mode()
def streamed(model: PreTrainedModel, layout: str, ids: torch.Tensor) -> torch.Tensor:
    """Logits of strict start_recent from the 16th token on, by way of a stream."""
    policy = build_policy("start_recent", 23, "post_prune", {"sinks": 4})
    stream = Stream(model, policy, new_cache(model, layout, policy, 24))
    with under(model, stream.cache.attention or "sdpa"):
        steps = [stream.prefill(ids[:, :16])]
        steps += [stream.decode(ids[:, t : t + 1]) for t in range(16, ids.shape[1])]
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stream_drives_the_ring_as_it_drives_every_layout(family):
    model, ids = tiny_model(family), random_ids(2, 70)
    expected = oracle_logits(model, ids, strict(24, 4))[:, 15:]
    assert (streamed(model, "ring", ids) - expected).abs().max() < 1e-4


def test_a_step_writes_the_sinks_keys_and_one_slot_and_copies_nothing():
    model, ids = small_model("llama"), random_ids(1, 70)
    ring = new_ring(model, 24, 4)
    ring_logits(model, ring, ids[:, :24])
    for t in range(24, 70):
        before = [(layer._keys.clone(), layer._values.clone()) for layer in ring.layers]
        places = [(layer._keys.data_ptr(), layer._values.data_ptr()) for layer in ring.layers]
        ring_logits(model, ring, ids[:, t : t + 1])
        slot = 4 + (t - 4) % 20
        for layer, (keys, values), place in zip(ring.layers, before, places, strict=True):
            changed = (layer._keys != keys).any(-1).any(1)[0].nonzero().flatten()
            assert changed.tolist() == [*range(4), slot]
            assert (layer._values != values).any(-1).any(1)[0].nonzero().item() == slot
            assert place == (layer.keys.data_ptr(), layer.values.data_ptr())
            assert layer.keys.shape[2] == 24


def test_a_decode_step_compiles_as_one_graph_which_serves_every_token():
    model, ids = small_model("llama"), random_ids(1, 90)
    expected = ring_logits(model, new_ring(model, 24, 4), ids)
    torch._dynamo.reset()
    ring, graphs = new_ring(model, 24, 4), CompileCounterWithBackend("aot_eager")
    ring.early_initialization(1, 2, 8, torch.float32, torch.device("cpu"))
    position = torch.zeros(1, 1, dtype=torch.int64)

    @torch.compile(fullgraph=True, backend=graphs)
    def step(token: torch.Tensor) -> torch.Tensor:
        return model(
            input_ids=token, position_ids=position, past_key_values=ring, **ring.options
        ).logits

    with torch.no_grad(), under(model, RING_ATTENTION):
        for t in range(24):
            feed(model, ring, ids[:, t : t + 1])
        for t in range(24, 90):
            assert torch.allclose(step(ids[:, t : t + 1])[:, 0], expected[:, t], atol=1e-5)
            ring.evict([sinks_and_recent(24, 4, 1)] * 2)
    assert graphs.frame_count == 1


def ring_layer(cap: int, sinks: int, dim: int = 8) -> RingLayer:
    rotary = Rotary(1.0 / 100 ** (torch.arange(0, dim, 2) / dim))
    return RingLayer(RingClock(rotary, cap, sinks), leads=True)


@given(sinks=st.integers(0, 4), recents=st.integers(1, 6), tokens=st.integers(1, 40))
def test_columns_say_where_the_entries_stand_by_age(sinks, recents, tokens):
    cap = sinks + recents
    layer = ring_layer(cap, sinks)
    for t in range(tokens):
        entry = torch.full((1, 1, 1, 8), float(t))
        add(layer, entry, entry)
    stream = list(range(tokens))
    held = stream if tokens <= cap else stream[:sinks] + stream[-recents:]

    def by_age() -> list[float]:
        values = layer.values[0, 0, :, 0]
        return values.tolist() if layer.columns is None else values[layer.columns[0, 0]].tolist()

    assert by_age() == held
    if layer.length == cap:
        layer.evict(sinks_and_recent(cap, sinks, 1), end=0)
        assert layer.length == cap - 1
        assert by_age() == held[:sinks] + held[sinks + 1 :]


def test_a_sink_is_rotated_once_from_the_key_as_it_arrived():
    """In bfloat16 rotating a rotated key over and over would be off by tens of percents."""
    torch.manual_seed(0)
    layer = ring_layer(8, 1)
    key = torch.randn(1, 1, 1, 8).to(torch.bfloat16)
    for t in range(1000):
        add(layer, key if t == 0 else torch.zeros_like(key), key)
    rotary = Rotary(1.0 / 100 ** (torch.arange(0, 8, 2) / 8))
    wanted = rotary.rotate(key, torch.tensor([999 - 7]))
    assert torch.equal(layer.keys[:, :, :1], wanted)


@given(
    position=st.integers(0, 10**9),
    rotated=st.sampled_from([2, 4, 8]),
    rows=st.integers(1, 3),
)
def test_the_clock_turns_as_the_rotary_does(position, rotated, rows):
    rotary = Rotary(1.0 / 100 ** (torch.arange(0, rotated, 2) / rotated))
    clock = RingClock(rotary, 8, 2)
    clock.position.fill_(position)
    clock.tick(rows, held=0)
    x = torch.randn(1, 2, rows, 8, generator=torch.Generator().manual_seed(position))
    turned = clock.turn(x)
    wanted = rotary.rotate(x[..., :rotated], torch.tensor([position]))
    assert torch.allclose(turned[..., :rotated], wanted, atol=1e-6)
    assert torch.equal(turned[..., rotated:], x[..., rotated:])


def test_a_new_document_starts_over():
    model, ids = small_model("qwen2"), random_ids(1, 60)
    ring = new_ring(model, 24, 4)
    first = ring_logits(model, ring, ids)
    for layer in ring.layers:
        layer.reset()
    assert torch.equal(ring_logits(model, ring, ids), first)


def test_only_the_oldest_recent_entry_can_be_evicted_and_only_from_a_full_ring():
    layer = ring_layer(8, 2)
    add(layer, torch.zeros(1, 2, 7, 8), torch.zeros(1, 2, 7, 8))
    with pytest.raises(ValueError, match="asked to keep 6 of 7"):
        layer.evict(sinks_and_recent(7, 2, 1), end=0)
    add(layer, torch.zeros(1, 2, 1, 8), torch.zeros(1, 2, 1, 8))
    for keep in (
        sinks_and_recent(8, 2, 2),
        sinks_and_recent(8, 3, 1),
        torch.arange(8),
        torch.stack([sinks_and_recent(8, 2, 1), sinks_and_recent(8, 3, 1)])[None],
    ):
        with pytest.raises(ValueError, match="layout 'ring'"):
            layer.evict(keep, end=0)
    layer.evict(sinks_and_recent(8, 2, 1).expand(1, 2, -1), end=0)
    assert layer.length == 7


def test_a_lazy_policy_is_refused_before_an_entry_is_lost():
    model, ids = small_model("llama"), random_ids(1, 40)
    policy = build_policy("lazy", 20, "post_prune", {"sinks": 4, "period": 5})
    stream = Stream(model, policy, new_ring(model, 21, 4))
    with torch.inference_mode(), under(model, RING_ATTENTION):
        stream.prefill(ids[:, :20])
        stream.decode(ids[:, 20:21])
        with pytest.raises(ValueError, match="prune after every token"):
            stream.decode(ids[:, 21:22])


def test_more_tokens_than_there_are_slots_are_refused():
    layer = ring_layer(8, 2)
    with pytest.raises(ValueError, match="to take 9 tokens"):
        layer.make_room(9, longest=0)
    with pytest.raises(RuntimeError, match="9 slots needed, 8 there"):
        add(layer, torch.zeros(1, 1, 9, 8), torch.zeros(1, 1, 9, 8))
    with pytest.raises(ValueError, match="cap 4 cannot hold 4 sinks"):
        RingClock(Rotary(torch.ones(2)), 4, 4)


@torch.inference_mode()
def test_a_model_that_leaves_the_query_where_it_is_is_stopped():
    model, ids = small_model("llama"), random_ids(1, 4)
    with pytest.raises(RuntimeError, match=f"under attention '{RING_ATTENTION}'"):
        feed(model, new_ring(model, 24, 4), ids)


@torch.inference_mode()
def test_without_a_ring_its_attention_is_sdpa_in_blocks_and_steps():
    model, ids = tiny_model("llama"), random_ids(2, 30)

    def logits(attention: str) -> list[torch.Tensor]:
        layers, rotary = families.layer_count(model), families.rotary(model)
        kept = EvictingCache("compact", layers, rotary, 32)
        assert kept.attention is None
        assert kept.options == {}
        with under(model, attention):
            return [
                model(input_ids=part, past_key_values=kept).logits
                for part in ids.split([12, 7, 10, 1], dim=1)
            ]

    for ours, plain in zip(logits(RING_ATTENTION), logits("sdpa"), strict=True):
        assert torch.equal(ours, plain)
