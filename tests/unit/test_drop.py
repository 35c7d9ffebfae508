"""Dropping part of a fused cache: what stays, head by head, and decoding on behind the prompt."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny import tiny_item, tiny_source, tiny_variant
from transformers import DynamicCache

import kvpareto.reuse.drops
from kvpareto.models.families import blocks
from kvpareto.reuse.answer import greedy
from kvpareto.reuse.drop import Drop, drop_of
from kvpareto.reuse.fuse import Prefilled, assemble, fuse, prefill
from kvpareto.reuse.strategy import Layer, strategy_of

ITEM = tiny_item()  # prefix 0-3, document 4-31, question 32-37
LENGTH, KV_HEADS, HEADS, HEAD_DIM, SCALE = 38, 2, 4, 5, 0.45


@dataclass(frozen=True)
class Row:
    """A way to drop, and the positions that always stay."""

    method: str
    always: set[int]
    parameters: dict[str, Any] = field(default_factory=dict)

    def drop(self, budget: int) -> Drop:
        return drop_of(self.method, {"budget": budget} | self.parameters)


ROWS = [
    Row("streaming", {0, 1, 2, 3, 35, 36, 37}),
    Row("snapkv", {34, 35, 36, 37}, {"observed": 4}),
    Row("snapkv", {34, 35, 36, 37}, {"observed": 4, "block": 3, "kernel": 1}),
    Row("snapkv", set(range(32, 38)), {"observed": 7}),  # more than the question has
]


def seen(seed: int = 0, spread: float = 2.0) -> tuple[Layer, torch.Tensor]:
    """A layer and the queries of the question; with `spread` 0 all tokens are alike."""
    generator = torch.Generator().manual_seed(seed)
    keys, values = spread * torch.randn(2, KV_HEADS, LENGTH, HEAD_DIM, generator=generator)
    return Layer(keys, values), torch.randn(HEADS, 6, HEAD_DIM, generator=generator)


def test_every_method_has_a_row():
    folder = Path(kvpareto.reuse.drops.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == {r.method for r in ROWS}


@settings(max_examples=20, deadline=None)
@given(row=st.sampled_from(ROWS), budget=st.integers(8, LENGTH - 1), seed=st.integers(0, 5))
def test_every_head_keeps_exactly_its_budget_sorted_each_once(row, budget, seed):
    kept = row.drop(budget).keep(ITEM, *seen(seed), SCALE)
    assert kept.shape == (KV_HEADS, budget)
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < LENGTH
    assert all(row.always <= set(head) for head in kept.tolist())


@pytest.mark.parametrize(
    ("budget", "expected"),
    [(10, [0, 1, 2, 3, 32, 33, 34, 35, 36, 37]), (4, [0, 1, 2, 37]), (1, [37])],
)
def test_streaming_keeps_the_prefix_and_the_most_recent(budget, expected):
    kept = drop_of("streaming", {"budget": budget}).keep(ITEM, *seen(), SCALE)
    assert kept.tolist() == [expected] * KV_HEADS


def slow_snapkv(
    layer: Layer, queries: torch.Tensor, budget: int, observed: int, kernel: int, block: int
) -> list[list[int]]:
    """SnapKV in plain loops."""
    kept, before = [], LENGTH - observed
    for kv_head in range(KV_HEADS):
        score = [0.0] * before
        for head in range(HEADS):
            if head * KV_HEADS // HEADS != kv_head:
                continue
            for query in range(before, LENGTH):
                vector = queries[head, query - LENGTH]
                weights = [
                    math.exp(float(vector @ layer.keys[kv_head, j]) * SCALE)
                    for j in range(query + 1)
                ]
                score = [s + w / sum(weights) for s, w in zip(score, weights, strict=False)]
        half = kernel // 2
        smooth = [sum(score[max(0, j - half) : j + half + 1]) / kernel for j in range(before)]
        groups = [range(start, min(start + block, before)) for start in range(0, before, block)]
        groups.sort(key=lambda group: (-sum(smooth[j] for j in group), group.start))
        order = [j for group in groups for j in group]
        kept.append(sorted(order[: budget - observed]) + list(range(before, LENGTH)))
    return kept


@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("kernel", [1, 5])
@pytest.mark.parametrize(("budget", "observed"), [(9, 3), (20, 6), (37, 2)])
def test_snapkv_keeps_what_the_definition_says(budget, observed, kernel, block):
    parameters = {"budget": budget, "observed": observed, "kernel": kernel, "block": block}
    layer, queries = seen(seed=1)
    kept = drop_of("snapkv", parameters).keep(ITEM, layer, queries, SCALE)
    assert kept.tolist() == slow_snapkv(layer, queries, **parameters)


def test_heads_keep_their_own():
    kept = drop_of("snapkv", {"budget": 12, "observed": 4}).keep(ITEM, *seen(), SCALE)
    assert kept[0].tolist() != kept[1].tolist()


def test_of_equal_scores_the_earlier_stay():
    parameters = {"budget": 10, "observed": 4, "kernel": 1}
    kept = drop_of("snapkv", parameters).keep(ITEM, *seen(spread=0), SCALE)
    assert kept.tolist() == [[0, 1, 2, 3, 4, 5, 34, 35, 36, 37]] * KV_HEADS


@pytest.mark.parametrize("seed", range(4))
def test_the_tokens_of_a_block_go_together(seed):
    parameters = {"budget": 6 + 4 * 4, "observed": 6, "block": 4}
    kept = drop_of("snapkv", parameters).keep(ITEM, *seen(seed), SCALE)
    for head in kept.tolist():
        chosen = {token for token in head if token < 32}
        assert len({token // 4 for token in chosen}) == 4  # 16 tokens, 32 is full blocks


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"budget": 20, "kernel": 4}, "kernel 4 is even"),
        ({"budget": 16, "observed": 16}, "budget 16 has no room beside the 16"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        drop_of("snapkv", parameters)


def fused(name: str, folder: Path, ratio: float = 0.3) -> Prefilled:
    model = tiny_variant(name)
    stored = assemble(tiny_source(model, folder).segments(ITEM), LENGTH)
    return fuse(blocks(model), ITEM, stored, strategy_of("blend", {"ratio": ratio}))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.method)
def test_the_entries_that_stay_are_unchanged(row, tmp_path):
    done = fused("llama", tmp_path)
    drop = row.drop(14)
    shrunk = drop.apply(ITEM, done.layers, done.queries, SCALE)
    for before, after, queries in zip(done.layers, shrunk, done.queries, strict=True):
        kept = drop.keep(ITEM, before, queries, SCALE).tolist()
        for head, tokens in enumerate(kept):
            assert torch.equal(after.keys[head], before.keys[head, tokens])
            assert torch.equal(after.values[head], before.values[head, tokens])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.method)
@pytest.mark.parametrize("budget", [LENGTH, LENGTH + 5])
def test_a_cache_within_the_budget_stays_whole(budget, row, tmp_path):
    done = fused("llama", tmp_path)
    assert row.drop(budget).apply(ITEM, done.layers, done.queries, SCALE) == done.layers


@torch.inference_mode()
def masked(name: str, logits: torch.Tensor, layers: list[Layer], kept: list[int], most: int):
    """Greedy answer of the model with the whole cache, where a mask hides what was dropped."""
    model, cache = tiny_variant(name), DynamicCache()
    for index, layer in enumerate(layers):
        cache.update(layer.keys[None], layer.values[None], index)
    tokens = [int(logits.argmax())]
    while len(tokens) < most:
        position = LENGTH + len(tokens) - 1
        mask = torch.ones(1, 1, 1, position + 1, dtype=torch.bool)
        mask[..., [j for j in range(LENGTH) if j not in kept]] = False
        output = model(
            input_ids=torch.tensor([tokens[-1:]]),
            position_ids=torch.tensor([[position]]),
            attention_mask=mask,
            past_key_values=cache,
        )
        tokens.append(int(output.logits[0, -1].argmax()))
    return tokens


@pytest.mark.parametrize("name", ["llama", "llama-yarn", "qwen2", "qwen3"])
def test_after_a_drop_decoding_goes_on_at_the_prompts_position(name, tmp_path):
    done, model = fused(name, tmp_path), tiny_variant(name)
    drop = drop_of("streaming", {"budget": 12})
    shrunk = drop.apply(ITEM, done.layers, done.queries, blocks(model).softmax_scale)
    answer = greedy(model, done.logits, shrunk, LENGTH, 16, frozenset())
    kept = [*range(4), *range(30, LENGTH)]
    assert answer == masked(name, done.logits, done.layers, kept, 16)
    whole = greedy(model, done.logits, done.layers, LENGTH, 16, frozenset())
    earlier = greedy(model, done.logits, shrunk, 12, 16, frozenset())
    assert answer != whole
    assert answer != earlier


def test_a_sliding_window_misses_nothing_that_lies_beyond_it():
    model = tiny_variant("mistral-window")
    logits, layers = prefill(model, ITEM)
    shrunk = drop_of("streaming", {"budget": 4 + 12}).apply(ITEM, layers, [logits] * 4, SCALE)
    answers = [greedy(model, logits, held, LENGTH, 16, frozenset()) for held in (layers, shrunk)]
    assert answers[0] == answers[1]
