"""The merge forward: chunk by chunk it is attention over a cache that never lies in one piece."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from tests.tiny import VARIANTS, tiny_item, tiny_source, tiny_variant

from kvpareto.jobs import RefusedError
from kvpareto.merge.chunked import chunked_cache
from kvpareto.merge.context import (
    ContextError,
    gold_chunks,
    last_chunks,
    windows,
    with_chunks,
)
from kvpareto.merge.forward import answer, forward
from kvpareto.merge.memory import CONCATENATED, measure_memory
from kvpareto.merge.offset import offset_of
from kvpareto.merge_settings import MergeArms, MergeMemorySettings, WindowSettings
from kvpareto.models.families import blocks
from kvpareto.reuse.answer import greedy
from kvpareto.reuse.fuse import prefill

WHOLE = [name for name in VARIANTS if not name.endswith("-window")]
METHODS = {
    "zero": {},
    "energy_deficit": {"top_k": 2},
    "mean_field": {},
    "hard_drop": {"threshold": 0.2},
    "drop_sink": {"sink_tokens": 3},
    "tiered": {"threshold": 0.2, "misjudged": 0.5},
    "ape": {},
    "decrowd": {},
}


def cache_of(name: str, folder, item, positions="shared", mode="bos"):
    source = tiny_source(tiny_variant(name), folder, mode)
    prefix, *chunks = source.segments(item)
    return source.blocks, chunked_cache(
        source.blocks, prefix, chunks, positions, range(len(chunks))
    )


def logits(parts, cache, item, offset="zero", **how):
    method = offset_of(offset, METHODS.get(offset, {}))
    return forward(parts, cache, torch.tensor(item.question), method, **how)


@pytest.mark.parametrize("name", WHOLE)
def test_one_chunk_after_its_prefix_is_the_models_own_prefill(name, tmp_path):
    """Nothing is lost where nothing was encoded apart: all families, RoPE kinds, grouped heads."""
    item = tiny_item(chunks=(13,))
    parts, cache = cache_of(name, tmp_path, item, mode="prompt")
    got = logits(parts, cache, item)
    with torch.inference_mode():
        whole = tiny_variant(name)(input_ids=item.ids[None]).logits[0, -len(item.question) :]
    torch.testing.assert_close(got, whole, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_the_steps_after_it_answer_as_the_model_does(name, tmp_path):
    item = tiny_item(chunks=(13,))
    parts, cache = cache_of(name, tmp_path, item, mode="prompt")
    zero = offset_of("zero", {})
    first = logits(parts, cache, item)[-1]
    last, layers = prefill(tiny_variant(name), item)
    wanted = greedy(tiny_variant(name), last, layers, len(item.ids), 8, frozenset())
    assert answer(parts, cache.fork(), first, zero, 8, frozenset()) == wanted
    assert answer(parts, cache, first, zero, 8, frozenset(), at_once=True) == wanted


@pytest.mark.parametrize("positions", ["shared", "sequential"])
@pytest.mark.parametrize("name", WHOLE)
def test_without_an_offset_it_is_full_attention_over_the_same_keys(name, positions, tmp_path):
    item = tiny_item()
    parts, cache = cache_of(name, tmp_path, item, positions)
    whole = logits(parts, cache.concatenated(), item, "concat")
    torch.testing.assert_close(logits(parts, cache.fork(), item), whole, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["shared", "sequential"])
@pytest.mark.parametrize("method", METHODS)
def test_all_at_once_is_chunk_by_chunk(method, positions, tmp_path):
    item = tiny_item()
    parts, cache = cache_of("llama", tmp_path, item, positions)
    one, other = cache.fork(), cache.fork()
    seen: list[list[torch.Tensor]] = [[], []]
    for _ in range(2):  # the second time with what the first one has deleted
        results = [
            logits(
                parts, fork, item, method, at_once=way, watch=lambda _, after, s=s: s.append(after)
            )
            for way, fork, s in ((False, one, seen[0]), (True, other, seen[1]))
        ]
        torch.testing.assert_close(*results, atol=2e-4, rtol=1e-4)
    for layer, same in zip(one.layers, other.layers, strict=True):
        assert torch.equal(layer.gone, same.gone)
    for pair in zip(*seen, strict=True):
        torch.testing.assert_close(*pair, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["zero", "energy_deficit", "decrowd", "ape"])
def test_at_shared_positions_the_order_of_chunks_does_not_matter(method, tmp_path):
    item = tiny_item()
    turned = replace(item, chunks=item.chunks[::-1])
    (parts, one), (_, other) = (cache_of("qwen2", tmp_path, each) for each in (item, turned))
    torch.testing.assert_close(
        logits(parts, one, item, method), logits(parts, other, item, method), atol=2e-4, rtol=1e-4
    )
    (_, one), (_, other) = (
        cache_of("qwen2", tmp_path, each, "sequential") for each in (item, turned)
    )
    difference = logits(parts, one, item, method) - logits(parts, other, item, method)
    assert difference.abs().max() > 1e-2


def test_the_question_stands_behind_the_longest_chunk_or_behind_the_last(tmp_path):
    item = tiny_item(prefix=4, chunks=(9, 12, 7))
    assert cache_of("llama", tmp_path, item)[1].position == 4 + 12
    assert cache_of("llama", tmp_path, item, "sequential")[1].position == 4 + 28


def test_what_is_deleted_once_no_later_query_sees(tmp_path):
    item = tiny_item()
    parts, cache = cache_of("llama", tmp_path, item)
    untouched = cache.fork()
    logits(parts, cache, item, "hard_drop")
    gone = torch.stack([layer.gone for layer in cache.layers])
    assert gone.any()
    assert not gone.all()
    assert not any(layer.gone.any() for layer in untouched.layers)
    # Other values in a chunk that is gone for all heads of a layer change nothing any more.
    layer, chunk = (int(x) for x in gone.all(2).nonzero()[0])
    known = cache.fork()
    cache.layers[layer].chunks = list(cache.layers[layer].chunks)
    old = cache.layers[layer].chunks[chunk]
    cache.layers[layer].chunks[chunk] = replace(old, values=old.values + 100)
    torch.testing.assert_close(logits(parts, known, item), logits(parts, cache, item))


def test_a_sliding_window_is_refused(tmp_path):
    item = tiny_item()
    parts, cache = cache_of("mistral-window", tmp_path, item)
    with pytest.raises(RefusedError, match="sliding window"):
        logits(parts, cache, item)


def test_memory_does_not_grow_with_the_chunks_and_the_controls_does():
    parts = blocks(tiny_variant("llama"))
    settings = MergeMemorySettings(
        chunks=[8, 64], chunk_tokens=256, question_tokens=4, pairs=6, warm_up=1,
        arms=[MergeArms(offset="energy_deficit")],
    )  # fmt: skip
    rows = measure_memory(parts, settings, 0.9)
    assert (rows["status"] == "ok").all()
    assert (rows["run"] == CONCATENATED).sum() == 2  # once for each number of chunks
    peak = rows.set_index(["offset", "run", "chunks"])["peak_extra_bytes"]
    own = peak["energy_deficit", "chunk by chunk"]
    assert own[64] <= 1.05 * own[8]
    assert peak["energy_deficit", "at once"][64] > 4 * peak["energy_deficit", "at once"][8]
    control = peak["concat", CONCATENATED]
    assert 7 < control[64] / control[8] < 9
    timed = rows[rows["run"] != CONCATENATED]
    assert (timed[["pass_ms", "step_ms", "pass_ratio", "step_ratio"]] > 0).all(axis=None)


def supported(chunk: int, item=None):
    item = item or tiny_item(chunks=(4, 4, 4, 4))
    start, _ = item.spans[chunk]
    return replace(item, support=((start + 1, start + 3),))


def test_contexts_are_nested_and_always_hold_the_answer():
    item = supported(2)
    assert gold_chunks(item) == [2]
    contexts = [with_chunks(item, count) for count in (1, 2, 3, 4)]
    assert [c.gold for c in contexts] == [(0,), (1,), (2,), (2,)]
    for fewer, more in itertools.pairwise(contexts):
        assert set(fewer.item.chunks) < set(more.item.chunks)
    for context in contexts:
        assert context.item.chunks[context.gold[0]] == item.chunks[2]
    assert contexts[-1].item.chunks == item.chunks


def test_an_answer_across_two_chunks_has_two_gold_chunks():
    item = tiny_item(chunks=(4, 4, 4))
    edge = item.spans[1][0]
    assert gold_chunks(replace(item, support=((edge - 1, edge + 1),))) == [0, 1]


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_and_too_many_chunks_are_refused_with_the_numbers(count):
    with pytest.raises(ContextError, match=f"has 4 chunks, 1 of them.*chunks: {count}"):
        with_chunks(supported(0), count)


def test_an_item_that_does_not_say_where_its_answer_is_is_refused():
    with pytest.raises(ContextError, match="no support"):
        with_chunks(tiny_item(), 2)


def test_windows_of_a_text_follow_each_other_in_the_text():
    ids = torch.arange(100)
    cut = WindowSettings(chunk_tokens=8, scored_tokens=5, per_document=3)
    items = list(windows([ids], cut, chunks=4, bos=0))
    assert len(items) == 3
    for item in items:
        stretch = [token for chunk in item.chunks for token in chunk] + list(item.question)
        assert stretch == list(range(stretch[0], stretch[0] + 4 * 8 + 5))
    assert items[0].chunks[0][0] == 0
    assert items[-1].question[-1] == 99
    short = last_chunks(items[1], 2)
    assert short.item.chunks == items[1].chunks[-2:]
    assert short.item.question == items[1].question


def test_a_text_that_is_too_short_is_refused_with_the_numbers():
    cut = WindowSettings(chunk_tokens=8, scored_tokens=5, per_document=3)
    with pytest.raises(ContextError, match=r"document 0 has 38 tokens; 3 windows of 4 chunks"):
        list(windows([torch.arange(38)], cut, chunks=4, bos=0))
