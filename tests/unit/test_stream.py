"""Streaming decode: exact against the oracle, and the same in every layout and block size."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle import oracle_logits
from tests.tiny import SHAPES, random_ids, tiny_model

from kvpareto.eviction.autocap import build_policy
from kvpareto.eviction.policy import EvictionPolicy, sinks_and_recent
from kvpareto.measure.nll import recompute_nll, stream_nll, thinned
from kvpareto.measure.stream import InvalidDecisionError, Stream, new_cache

FAMILIES = list(SHAPES)
CACHED = {
    "start_recent": {"sinks": 4},
    "recent": {},
    "lazy": {"sinks": 3, "period": 7},
    "random": {"sinks": 2, "period": 5},
}


def strict_keep(capacity: int, sinks: int):
    def keep(step: int, length: int):
        over = length - capacity
        return sinks_and_recent(length, sinks, over) if over > 0 else None

    return keep


def decode_all(model, policy: EvictionPolicy, layout: str, ids: torch.Tensor) -> torch.Tensor:
    """Logits after every token, one token at a time from an almost empty cache."""
    stream = Stream(model, policy, new_cache(model, layout, policy, policy.capacity + 2))
    with torch.inference_mode():
        steps = [stream.prefill(ids[:, :1])]
        steps += [stream.decode(ids[:, t : t + 1]) for t in range(1, ids.shape[1])]
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["compact", "soft_ring"])
def test_strict_start_recent_equals_the_oracle(family, layout):
    model, ids = tiny_model(family), random_ids(2, 90)
    policy = build_policy("start_recent", 24, "post_prune", {"sinks": 4})
    expected = oracle_logits(model, ids, strict_keep(24, 4))
    got = decode_all(model, policy, layout, ids)
    assert (got - expected).abs().max() < 1e-4
    assert expected.abs().max() > 1  # the comparison has something to compare


@settings(max_examples=15, deadline=None)
@given(capacity=st.integers(6, 20), sinks=st.integers(0, 4), seed=st.integers(0, 99))
def test_strict_start_recent_equals_the_oracle_at_any_cap_and_sinks(capacity, sinks, seed):
    model, ids = tiny_model("gpt_neox"), random_ids(1, 45, seed)
    policy = build_policy("start_recent", capacity, "post_prune", {"sinks": sinks})
    expected = oracle_logits(model, ids, strict_keep(capacity, sinks))
    assert (decode_all(model, policy, "soft_ring", ids) - expected).abs().max() < 1e-4


def test_the_oracle_notices_wrong_positions():
    """Unclamped sinks, the usual mistake, are far outside the tolerance."""
    model, ids = tiny_model("gpt_neox"), random_ids(1, 60)
    policy = build_policy("start_recent", 24, "post_prune", {"sinks": 4})
    stream = Stream(model, policy, new_cache(model, "soft_ring", policy, 26))
    for layer in stream.cache.layers:
        layer.rotary = _Unturned(layer.rotary.inv_freq)
    with torch.inference_mode():
        got = [stream.prefill(ids[:, :1])]
        got += [stream.decode(ids[:, t : t + 1]) for t in range(1, 60)]
    expected = oracle_logits(model, ids, strict_keep(24, 4))
    assert (torch.stack(got, 1) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", CACHED)
@pytest.mark.parametrize("cap_on", ["post_prune", "peak"])
def test_blocks_equal_single_steps(family, name, cap_on):
    model, ids = tiny_model(family), random_ids(2, 100)
    policy = build_policy(name, 24, cap_on, CACHED[name])
    blocks = stream_nll(model, policy, ids, 24)
    steps = stream_nll(model, policy, ids, 24, blockwise=False)
    figures = ["nll_nats", "entropy_nats"]
    assert blocks.drop(columns=figures).equals(steps.drop(columns=figures))
    assert (blocks[figures] - steps[figures]).abs().max().max() < 1e-4


@pytest.mark.parametrize("name", CACHED)
def test_block_evaluation_equals_the_timed_path(name):
    """Quality is measured in blocks, time step by step through the cache: one and the same arm."""
    model, ids = tiny_model("gpt_neox"), random_ids(2, 80)
    policy = build_policy(name, 24, "post_prune", CACHED[name])
    frame = stream_nll(model, policy, ids, 24)
    stream = Stream(model, policy, new_cache(model, "compact", policy, 40))
    with torch.inference_mode():
        logits = [stream.prefill(ids[:, :24])]
        logits += [stream.decode(ids[:, t : t + 1]) for t in range(24, 79)]
    log_p = torch.stack(logits, 1).log_softmax(-1)
    nll = -log_p.gather(-1, ids[:, 24:, None])[..., 0]
    expected = torch.tensor(frame["nll_nats"].to_numpy()).reshape(2, -1)
    assert torch.allclose(nll, expected, atol=1e-4)


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


def test_rows_do_not_see_each_other():
    model, ids = tiny_model("llama"), random_ids(3, 70)
    for name, parameters in CACHED.items():
        policy = build_policy(name, 24, "post_prune", parameters)
        together = stream_nll(model, policy, ids, 24)
        alone = stream_nll(model, policy, ids[:1], 24)
        first = together[together["document"] == 0].reset_index(drop=True)
        assert (first["nll_nats"] - alone["nll_nats"]).abs().max() < 1e-4


def test_every_token_is_scored_once_and_every_arm_scores_the_same_ones():
    model, ids = tiny_model("gpt_neox"), random_ids(2, 100)
    for name, parameters in CACHED.items():
        frame = stream_nll(model, build_policy(name, 20, "peak", parameters), ids, 32)
        assert frame[["document", "position"]].drop_duplicates().shape[0] == len(frame)
        assert frame["position"].tolist() == 2 * list(range(32, 100))


def test_a_policy_that_loses_a_sink_or_the_order_is_refused():
    model, ids = tiny_model("gpt_neox"), random_ids(1, 40)
    for keep in (
        lambda entries, drop: torch.arange(drop, entries.length),
        lambda entries, drop: torch.arange(entries.length - drop).flip(0),
        lambda entries, drop: torch.arange(entries.length - drop - 1),
    ):
        policy = build_policy("lazy", 16, "post_prune", {"sinks": 2, "period": 4})
        object.__setattr__(policy, "keep", keep)
        stream = Stream(model, policy, new_cache(model, "compact", policy, 24))
        with torch.inference_mode():
            stream.prefill(ids[:, :16])
            for t in range(16, 19):
                stream.decode(ids[:, t : t + 1])
            with pytest.raises(InvalidDecisionError, match="layer 0"):
                stream.decode(ids[:, 19:20])


def test_one_rotation_from_the_pristine_key_does_not_drift_in_bfloat16():
    """Moving a 16-bit key 500 times costs no more than moving it once."""
    from kvpareto.attention.rope import Rotary
    from kvpareto.cache.compacting import CompactingLayer

    torch.manual_seed(0)
    rotary = Rotary(1.0 / 10000 ** (torch.arange(0, 32, 2) / 32))
    exact = torch.randn(1, 1, 1, 32)
    layer = CompactingLayer(rotary, 1100)
    filler = torch.zeros(1, 1, 600, 32, dtype=torch.bfloat16)
    layer.update(filler, filler)
    key = rotary.rotate(exact, torch.tensor([600])).to(torch.bfloat16)
    layer.update(key, key)
    for _ in range(500):
        layer.evict(torch.arange(1, layer.length))
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
