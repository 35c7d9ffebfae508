"""Streaming decode: exact against the oracle, and the same in every layout and block size."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle import oracle_logits
from tests.tiny import SHAPES, VOCAB, random_ids, tiny_model

import kvpareto.eviction.policies
from kvpareto.attention.rope import Rotary
from kvpareto.cache.compacting import CompactingLayer
from kvpareto.cache.layouts import Layout
from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policy import EvictionPolicy, policy_class, sinks_and_recent
from kvpareto.measure.nll import recompute_nll, stream_nll, thinned
from kvpareto.measure.stream import InvalidDecisionError, Stream, new_cache, quality_layout

FAMILIES = list(SHAPES)
STRUCTURAL = torch.arange(VOCAB) % 5 == 0

ARMS: list[tuple[str, dict[str, object]]] = [
    ("adaptive_entropy", {"sinks": 2, "period_min": 3, "period_max": 9, "span": 3}),
    ("adaptive_slack", {"delta": 5}),
    ("bridge", {"sinks": 3, "period": 5, "bridge": 2}),
    ("h2o", {"sinks": 2, "period": 4, "recent": 5}),
    ("h2o", {"sinks": 2, "period": 3, "recent": 5, "positions": "original"}),
    ("keydiff", {"sinks": 2, "period": 5, "recent": 3}),
    ("knorm", {"sinks": 0, "period": 3, "recent": 3}),
    ("lazy", {"sinks": 3, "period": 7}),
    ("max_drop", {"sinks": 2, "period": 7, "slack": 4, "max_drop": 4}),
    ("max_drop", {"sinks": 2, "period": 7, "slack": 4, "max_drop": 4, "variant": "cooldown"}),
    ("overlap", {"sinks": 2, "period": 6, "overlap": 3}),
    ("pyramidkv", {"sinks": 2, "period": 4, "recent": 4, "kernel": 3, "beta": 3}),
    ("random", {"sinks": 2, "period": 5}),
    ("recent", {}),
    ("refresh", {"period": 8, "budget": 3, "selector": "structural", "placement": "tail"}),
    ("refresh", {"period": 8, "budget": 3, "selector": "uncertainty", "placement": "middle"}),
    ("refresh", {"period": 3, "budget": 4, "placement": "sinks"}),
    ("scissorhands", {"sinks": 1, "recent": 4, "history": 9}),
    ("slack", {"sinks": 2, "period": 7, "slack": 3}),
    ("snapkv", {"sinks": 2, "period": 6, "recent": 4, "kernel": 3}),
    ("snapkv", {"sinks": 2, "period": 3, "recent": 4, "pool": "max", "positions": "original"}),
    ("start_recent", {"sinks": 4}),
    ("tova", {"sinks": 0, "period": 2}),
]
every_arm = pytest.mark.parametrize(
    ("name", "parameters"), ARMS, ids=lambda value: value if isinstance(value, str) else ""
)
SOME = [arm for arm in ARMS if arm[0] in ("h2o", "lazy", "snapkv") and "positions" not in arm[1]]


def ids_of(documents: int, tokens: int = 60) -> torch.Tensor:
    """Documents in which no token comes twice: equal keys would make ties, broken by rounding."""
    draw = torch.Generator().manual_seed(0)
    return torch.stack([torch.randperm(VOCAB, generator=draw)[:tokens] for _ in range(documents)])


def losses(model, policy: EvictionPolicy, ids: torch.Tensor, **options) -> pd.DataFrame:
    return stream_nll(model, policy, ids, 24, structural=STRUCTURAL, **options)


FIGURES = ["nll_nats", "entropy_nats"]


def differ(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """The largest difference of two runs in nats; everything else must be equal."""
    assert one.drop(columns=FIGURES).equals(other.drop(columns=FIGURES))
    return float((one[FIGURES] - other[FIGURES]).abs().max().max())


def strict_keep(capacity: int, sinks: int):
    def keep(step: int, length: int):
        over = length - capacity
        return sinks_and_recent(length, sinks, over) if over > 0 else None

    return keep


def decode_all(stream: Stream, ids: torch.Tensor, prefill: int = 1) -> torch.Tensor:
    """Logits after every token from the prefill's last on, one token at a time."""
    plain = stream.model.config._attn_implementation
    stream.model.set_attn_implementation(stream.attention)
    try:
        with torch.inference_mode():
            steps = [stream.prefill(ids[:, :prefill])]
            steps += [stream.decode(ids[:, t : t + 1]) for t in range(prefill, ids.shape[1])]
    finally:
        stream.model.set_attn_implementation(plain)
    return torch.stack(steps, dim=1)


def new_stream(model, policy: EvictionPolicy, layout: Layout = "soft_ring") -> Stream:
    cache = new_cache(model, layout, policy, policy.peak + 1)
    return Stream(model, policy, cache, structural=STRUCTURAL)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["compact", "soft_ring"])
def test_strict_start_recent_equals_the_oracle(family, layout):
    model, ids = tiny_model(family), random_ids(2, 90)
    policy = build_policy("start_recent", 24, "post_prune", {"sinks": 4})
    expected = oracle_logits(model, ids, strict_keep(24, 4))
    got = decode_all(new_stream(model, policy, layout), ids)
    assert (got - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1  # the comparison has something to compare


@settings(max_examples=8, deadline=None)
@given(capacity=st.integers(6, 20), sinks=st.integers(0, 4), seed=st.integers(0, 99))
def test_strict_start_recent_equals_the_oracle_at_any_cap_and_sinks(capacity, sinks, seed):
    model, ids = tiny_model("gpt_neox"), random_ids(1, 45, seed)
    policy = build_policy("start_recent", capacity, "post_prune", {"sinks": sinks})
    expected = oracle_logits(model, ids, strict_keep(capacity, sinks))
    assert (decode_all(new_stream(model, policy), ids) - expected).abs().max() < 1e-4


def test_the_oracle_notices_wrong_positions():
    """Unclamped sinks, the usual mistake, are far outside the tolerance."""
    model, ids = tiny_model("gpt_neox"), random_ids(1, 60)
    policy = build_policy("start_recent", 24, "post_prune", {"sinks": 4})
    stream = new_stream(model, policy)
    for layer in stream.cache.layers:
        layer.rotary = _Unturned(layer.rotary.inv_freq)
    expected = oracle_logits(model, ids, strict_keep(24, 4))
    assert (decode_all(stream, ids) - expected).abs().max() > 1e-2


def test_every_policy_with_a_cache_has_an_arm_here():
    folder = Path(kvpareto.eviction.policies.__file__).parent
    kinds = {path.stem: policy_class(path.stem) for path in folder.glob("[!_]*.py")}
    cached = {name for name, kind in kinds.items() if kind.uses_cache and not kind.refusal}
    assert {name for name, _ in ARMS} == cached - {"full"}


@every_arm
def test_blocks_equal_single_steps_and_score_every_token_once(name, parameters):
    model, ids = tiny_model("llama"), ids_of(2)
    policy = build_policy(name, 24, "post_prune", parameters)
    steps = losses(model, policy, ids, blockwise=False)
    assert differ(losses(model, policy, ids), steps) < 1e-4
    assert steps["pruned"].any()
    assert steps["document"].tolist() == [0] * 36 + [1] * 36
    assert steps["position"].tolist() == 2 * list(range(24, 60))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "parameters"), SOME)
def test_blocks_equal_single_steps_in_every_family(family, name, parameters):
    model, ids = tiny_model(family), ids_of(1)
    policy = build_policy(name, 24, "peak", parameters)
    assert differ(losses(model, policy, ids), losses(model, policy, ids, blockwise=False)) < 1e-4


@every_arm
def test_a_batch_of_documents_equals_each_of_them_alone(name, parameters):
    model, ids = tiny_model("llama"), ids_of(2)
    policy = build_policy(name, 24, "post_prune", parameters)
    together = losses(model, policy, ids)
    # Random draws for a row, so a second document alone is drawn for as the first.
    for row in range(1 if name == "random" else 2):
        alone = losses(model, policy, ids[row : row + 1]).assign(document=np.int32(row))
        mine = together[together["document"] == row].reset_index(drop=True)
        assert differ(mine, alone) < 1e-4


@every_arm
def test_a_stream_takes_nothing_from_one_document_to_the_next(name, parameters):
    model, ids = tiny_model("gpt_neox"), ids_of(2)
    policy = build_policy(name, 24, "post_prune", parameters)
    stream = new_stream(model, policy, quality_layout(policy))
    decode_all(stream, ids[:1, :57], policy.capacity)  # up to some tokens after a prune
    after = decode_all(stream, ids[1:], policy.capacity)
    alone = decode_all(new_stream(model, policy, quality_layout(policy)), ids[1:], policy.capacity)
    assert torch.equal(after, alone)


@every_arm
def test_block_evaluation_equals_the_timed_path(name, parameters):
    """Quality is measured in blocks in one layout, time step by step in another: the same arm."""
    model, ids = tiny_model("gpt_neox"), ids_of(2)
    policy = build_policy(name, 24, "peak", parameters)
    if policy.reads == "entropy":  # decides by the first row of a batch
        ids = ids[:1]
    frame = losses(model, policy, ids)
    assert quality_layout(policy) == ("overwrite" if policy.keeps_positions else "soft_ring")
    stream = new_stream(model, policy, "overwrite" if policy.keeps_positions else "compact")
    log_p = decode_all(stream, ids[:, :-1], policy.capacity).log_softmax(-1)
    nll = -log_p.gather(-1, ids[:, policy.capacity :, None])[..., 0]
    expected = torch.tensor(frame["nll_nats"].to_numpy()).reshape(len(ids), -1)
    assert torch.allclose(nll[:, 24 - policy.capacity :], expected, atol=1e-4)


def test_full_equals_one_forward_pass():
    model, ids = tiny_model("llama"), random_ids(2, 60)
    frame = stream_nll(model, build_policy("full", None, None, {}), ids, 24)
    with torch.inference_mode():
        log_p = model(input_ids=ids).logits.log_softmax(-1)[:, 23:-1]
    expected = -log_p.gather(-1, ids[:, 24:, None])[..., 0]
    got = torch.tensor(frame["nll_nats"].to_numpy()).reshape(2, -1)
    assert torch.allclose(got, expected, atol=1e-4)


def test_recompute_reads_exactly_the_last_cap_tokens():
    model, ids = tiny_model("gpt_neox"), random_ids(2, 60)
    frame = recompute_nll(model, 16, ids, [16, 40, 59])
    changed = ids.clone()
    changed[:, : 40 - 16] = (changed[:, : 40 - 16] + 1) % 97
    other = recompute_nll(model, 16, changed, [16, 40, 59])
    same = frame["position"] == 40
    assert (frame["nll_nats"] == other["nll_nats"])[same].all()
    assert (frame["nll_nats"] != other["nll_nats"])[frame["position"] == 16].all()


def test_a_policy_that_loses_a_sink_or_the_order_is_refused():
    model, ids = tiny_model("gpt_neox"), random_ids(1, 40)
    for keep in (
        lambda entries, drop: torch.arange(drop, entries.length),
        lambda entries, drop: torch.arange(entries.length - drop).flip(0),
        lambda entries, drop: torch.arange(entries.length - drop - 1),
    ):
        policy = build_policy("lazy", 16, "post_prune", {"sinks": 2, "period": 4})
        object.__setattr__(policy, "keep", keep)
        stream = new_stream(model, policy, "compact")
        with torch.inference_mode():
            stream.prefill(ids[:, :16])
            for t in range(16, 19):
                stream.decode(ids[:, t : t + 1])
            with pytest.raises(InvalidDecisionError, match="layer 0"):
                stream.decode(ids[:, 19:20])


def test_one_rotation_from_the_pristine_key_does_not_drift_in_bfloat16():
    """Moving a 16-bit key 500 times costs no more than moving it once."""
    torch.manual_seed(0)
    rotary = Rotary(1.0 / 10000 ** (torch.arange(0, 32, 2) / 32))
    exact = torch.randn(1, 1, 1, 32)
    layer = CompactingLayer(rotary, 1100)
    filler = torch.zeros(1, 1, 600, 32, dtype=torch.bfloat16)
    layer.update(filler, filler)
    key = rotary.rotate(exact, torch.tensor([600])).to(torch.bfloat16)
    layer.update(key, key)
    for _ in range(500):
        kept = torch.arange(1, layer.length)
        layer.evict(kept, end=len(kept))
    moved = layer._keys[:, :, layer.end - 1].float()
    wanted = rotary.rotate(exact, torch.tensor([100]))[:, :, 0]
    assert (moved - wanted).norm() / wanted.norm() < 0.01


def test_thinned_positions_are_spread_and_include_both_ends():
    assert thinned(10, 20, 3) == [10, 15, 20]
    assert thinned(10, 12, 50) == [10, 11, 12]


class _Unturned:
    """A rotation that does nothing: keys stay where they were first rotated for."""

    def __init__(self, inv_freq: torch.Tensor) -> None:
        self.dim = 2 * inv_freq.numel()

    def rotate(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return x
