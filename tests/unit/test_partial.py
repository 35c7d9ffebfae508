"""Attention in parts: outputs and log partition functions, merged, are the whole."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvpareto.attention.partial import OnlineMerge, Partial, log_partition, partial_attention

HEADS, KV_HEADS, QUERIES, DIM = 4, 2, 3, 8


def some(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return (
        some(HEADS, QUERIES, DIM, seed=1, scale=scale),
        some(KV_HEADS, tokens, DIM, seed=2),
        some(KV_HEADS, tokens, DIM, seed=3),
    )


def dense(query, key, value, mask=None):
    """The definition, with the keys repeated for every head of a group, in float64."""
    group = query.shape[0] // key.shape[0]
    key, value = (part.double().repeat_interleave(group, 0) for part in (key, value))
    logits = query.double() @ key.mT
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return (logits.softmax(-1) @ value).float(), logits.logsumexp(-1).float()


def merged(parts) -> Partial:
    parts = list(parts)
    merge = OnlineMerge(parts[0].output)
    for part in parts:
        merge.add(part)
    return merge.result()


def test_a_part_is_attention_over_its_keys_with_grouped_heads():
    query, key, value = inputs(7)
    output, lse = dense(query, key, value)
    part = partial_attention(query, key, value)
    torch.testing.assert_close(part.output, output)
    torch.testing.assert_close(part.lse, lse)
    assert torch.equal(part.lse, log_partition(query, key))


def test_a_batch_of_parts_is_each_of_them():
    query, key, value = inputs(12)
    keys, values = (torch.stack(x.split(4, dim=1)) for x in (key, value))
    batch = partial_attention(query, keys, values)
    for number in range(3):
        one = partial_attention(query, keys[number], values[number])
        torch.testing.assert_close(batch.output[number], one.output)
        torch.testing.assert_close(batch.lse[number], one.lse)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from([1.0, 30.0, 3000.0]),
)
def test_any_partition_in_any_order_is_the_whole(sizes, random, scale):
    query, key, value = inputs(sum(sizes) + 1, scale)
    bounds = [*sizes, 1]
    parts = [
        partial_attention(query, *pair)
        for pair in zip(key.split(bounds, 1), value.split(bounds, 1), strict=True)
    ]
    random.shuffle(parts)
    whole = merged(parts)
    output, lse = dense(query, key, value)
    # Logits reach +-1e4 at the largest scale, of which float32 knows 1e-3.
    near = {"rtol": 1e-4, "atol": 1e-5 * scale}
    torch.testing.assert_close(whole.output, output, **near)
    torch.testing.assert_close(whole.lse, lse, **near)


def test_a_mask_hides_keys_and_a_query_that_sees_none_gets_zero():
    query, key, value = inputs(5)
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    part = partial_attention(query, key, value, mask)
    output, _ = dense(query, key, value, mask)
    torch.testing.assert_close(part.output[:, [0, 2]], output[:, [0, 2]])
    assert (part.output[:, 1] == 0).all()
    assert (part.lse[:, 1] == -torch.inf).all()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_that_is_nowhere_visible_changes_nothing(place):
    query, key, value = inputs(6)
    parts = [
        partial_attention(query, key[:, half], value[:, half])
        for half in (slice(0, 2), slice(2, 6))
    ]
    empty = partial_attention(query, key[:, :0], value[:, :0])
    without = merged(parts)
    parts.insert(place, empty)
    found = merged(parts)
    torch.testing.assert_close(found.output, without.output)
    torch.testing.assert_close(found.lse, without.lse)


def test_nothing_visible_at_all_is_zero_and_not_nan():
    query, key, value = inputs(3)
    empty = partial_attention(query, key[:, :0], value[:, :0])
    found = merged([empty, empty])
    assert (found.output == 0).all()
    assert (found.lse == -torch.inf).all()


def test_logarithms_to_base_two_do_not_pass_for_natural_ones():
    query, key, value = inputs(6)
    parts = [
        partial_attention(query, key[:, half], value[:, half])
        for half in (slice(0, 2), slice(2, 6))
    ]
    mixed = [parts[0], Partial(parts[1].output, parts[1].lse / math.log(2))]
    output, _ = dense(query, key, value)
    torch.testing.assert_close(merged(parts).output, output)
    assert (merged(mixed).output - output).abs().max() > 1e-2
