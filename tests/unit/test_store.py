"""The chunk store: what was written or nothing, found by all that it depends on."""

from __future__ import annotations

import dataclasses
import logging
from contextlib import suppress
from dataclasses import replace

import pytest
import torch
from tests.tiny import VARIANTS, tiny_item, tiny_source, tiny_variant
from transformers import DynamicCache

from kvpareto.attention.rope import turned
from kvpareto.cache.store import ChunkStore, DamagedEntryError, Identity, Segment
from kvpareto.models.families import blocks
from kvpareto.reuse.precompute import encode

IDENTITY = Identity("model@1", "tokens", "float32", "theta=10000", (0,), True)
CHANGES = {
    "model": "model@2",
    "tokenizer": "others",
    "dtype": "bfloat16",
    "rope": "theta=500000",
    "prefix": (0, 7),
    "surprisal": False,
}
TOKENS = (5, 6, 7)


@pytest.fixture
def store(tmp_path) -> ChunkStore:
    return ChunkStore(tmp_path / "store")


@pytest.fixture
def model():
    return tiny_variant("llama")


def some(tokens: int = 3, dtype: torch.dtype = torch.float32, surprisal: bool = True) -> Segment:
    generator = torch.Generator().manual_seed(0)
    keys, values = torch.randn(2, 2, 2, tokens, 4, generator=generator).to(dtype)
    return Segment(keys, values, torch.rand(tokens, generator=generator) if surprisal else None)


def same(one: Segment | None, other: Segment) -> bool:
    """Bit for bit, NaN included."""
    if one is None or one.tensors.keys() != other.tensors.keys():
        return False
    pairs = [(one.tensors[name], tensor) for name, tensor in other.tensors.items()]
    return all(
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in pairs
    )


def entries(store: ChunkStore) -> list:
    return sorted(store.folder.rglob("*.safetensors"))


@pytest.mark.parametrize("surprisal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_what_was_written_bit_for_bit(dtype, surprisal, store):
    segment = some(dtype=dtype, surprisal=surprisal)
    segment.keys[0, 0, 0, :3] = torch.tensor([float("nan"), -0.0, float("inf")])
    store.put(IDENTITY.key(TOKENS), segment)
    assert same(store.get(IDENTITY.key(TOKENS)), segment)


def test_what_is_not_contiguous_is_stored_as_it_reads(store):
    whole = some(tokens=6)
    part = Segment(whole.keys[:, :, 1:4], whole.values[:, :, 1:4], whole.surprisal[1:4])
    store.put("part", part)
    assert same(store.get("part"), part)


def test_an_empty_store_has_nothing(store):
    assert store.get(IDENTITY.key(TOKENS)) is None


def test_the_changes_below_are_of_every_component():
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(Identity)}


@pytest.mark.parametrize("name", CHANGES)
def test_any_other_component_is_a_miss(name, store):
    store.put(IDENTITY.key(TOKENS), some())
    assert store.get(replace(IDENTITY, **{name: CHANGES[name]}).key(TOKENS)) is None


@pytest.mark.parametrize("tokens", [(5, 6), (5, 7, 6), (5, 6, 7, 8), (56, 7), ()])
def test_other_tokens_are_a_miss(tokens, store):
    store.put(IDENTITY.key(TOKENS), some())
    assert store.get(IDENTITY.key(tokens)) is None


def test_a_token_of_the_prefix_is_not_one_of_the_chunk():
    shifted = replace(IDENTITY, prefix=(0, 5))
    assert shifted.key((6, 7)) != replace(IDENTITY, prefix=(0,)).key((5, 6, 7))


def test_permuted_chunks_are_found(model, tmp_path):
    source, item = tiny_source(model, tmp_path), tiny_item()
    written = source.segments(item)
    assert (source.hits, source.misses) == (0, 4)
    order = [2, 0, 1]
    read = source.segments(replace(item, chunks=tuple(item.chunks[i] for i in order)))
    assert (source.hits, source.misses) == (4, 4)
    assert all(same(read[1 + i], written[1 + j]) for i, j in enumerate(order))


def test_a_chunk_in_two_items_is_stored_once(model, tmp_path):
    source, one = tiny_source(model, tmp_path), tiny_item(seed=1)
    two = replace(tiny_item(seed=2), prefix=one.prefix)
    source.segments(one)
    assert len(entries(source.store)) == 4
    source.segments(replace(two, chunks=(*two.chunks, one.chunks[1])))
    assert len(entries(source.store)) == 4 + 3


def test_a_chunk_is_another_after_another_prefix(model, tmp_path):
    source, item = tiny_source(model, tmp_path, "prompt"), tiny_item()
    source.segments(item)
    source.segments(replace(item, prefix=tiny_item(seed=3).prefix))
    assert source.hits == 0
    tiny_source(model, tmp_path, "bos").segments(item)
    assert len(entries(source.store)) == 2 * 4 + 3  # after BOS: the chunks, not the prefix


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes, at: int = -5) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", [cut, flip, lambda content: b""])
def test_a_damaged_entry_is_rebuilt_and_reported_and_never_used(damage, model, tmp_path, caplog):
    source, item = tiny_source(model, tmp_path), tiny_item()
    whole = source.segments(item)
    path = source.store.path(source.key((0,), item.chunks[1]))
    content = path.read_bytes()
    path.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        again = source.segments(item)
    assert all(same(one, other) for one, other in zip(again, whole, strict=True))
    assert source.rebuilt == [path.stem]
    assert str(path) in caplog.text
    assert path.read_bytes() == content
    source.segments(item)
    assert len(source.rebuilt) == 1


def test_no_flipped_bit_goes_unnoticed(store):
    segment = some(tokens=1)
    store.put("entry", segment)
    path = store.path("entry")
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(flip(content, at))
        with suppress(DamagedEntryError):
            assert same(store.get("entry"), segment), f"byte {at}"


def test_half_an_entry_of_another_process_is_not_one(store):
    key = IDENTITY.key(TOKENS)
    store.put(key, some())
    path = store.path(key)
    path.rename(path.with_name(f".{path.stem}-x1y2{path.suffix}"))
    assert store.get(key) is None


def test_a_failed_write_leaves_nothing(store, monkeypatch):
    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("kvpareto.cache.store.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        store.put("entry", some())
    assert store.get("entry") is None
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


def test_an_entry_is_read_again_after_its_pages_are_dropped(store):
    store.put("entry", some())
    store.forget_pages("entry")
    assert same(store.get("entry"), some())


@pytest.fixture(params=VARIANTS)
def any_model(request):
    return tiny_variant(request.param)


@torch.inference_mode()
def test_an_encoded_chunk_is_the_models_own_cache_before_rope(any_model):
    ids, skip = torch.tensor([0, *tiny_item().chunks[1]]), 1
    parts = blocks(any_model)
    segment = encode(parts, ids, skip, surprisal=False)
    assert segment.surprisal is None
    assert len(segment) == len(ids) - skip
    angles = parts.angles(torch.arange(len(ids)))
    cache = DynamicCache()
    any_model(input_ids=ids[None], past_key_values=cache)
    for key, value, layer in zip(segment.keys, segment.values, cache.layers, strict=True):
        torch.testing.assert_close(value, layer.values[0, :, skip:], atol=1e-4, rtol=0)
        placed = turned(key, *(angle[skip:] for angle in angles))
        torch.testing.assert_close(placed, layer.keys[0, :, skip:], atol=1e-4, rtol=0)
        assert not torch.allclose(key, layer.keys[0, :, skip:], atol=1e-2)


@torch.inference_mode()
@pytest.mark.parametrize("before", [(), (0,), (0, 9, 11)])
def test_surprisal_is_the_models_own_loss_and_0_at_first(before, any_model):
    ids = torch.tensor([*before, *tiny_item().chunks[1]])
    losses = encode(blocks(any_model), ids, len(before), surprisal=True).surprisal
    logits = any_model(input_ids=ids[None]).logits[0]
    expected = [
        -logits[i - 1].log_softmax(-1)[ids[i]].item() for i in range(len(before) + 1, len(ids))
    ]
    torch.testing.assert_close(losses, torch.tensor([0.0, *expected]), atol=1e-4, rtol=0)


def test_without_bos_a_chunk_is_encoded_as_it_stands(model, tmp_path):
    source = tiny_source(model, tmp_path, bos=None)
    item = replace(tiny_item(), prefix=())
    segments = source.segments(item)
    assert [len(segment) for segment in segments] == [9, 12, 7]
    expected = encode(source.blocks, torch.tensor(item.chunks[0]), 0, surprisal=True)
    assert same(segments[0], expected)
    with_bos = tiny_source(model, tmp_path).segments(item)
    assert not torch.allclose(segments[0].values[1], with_bos[0].values[1], atol=1e-2)


def test_the_bos_column_is_dropped(model, tmp_path):
    source, item = tiny_source(model, tmp_path), tiny_item()
    assert [len(segment) for segment in source.segments(item)] == [4, 9, 12, 7]
    whole = encode(source.blocks, torch.tensor([0, *item.chunks[0]]), 0, surprisal=False)
    stored = source.segment((0,), item.chunks[0])
    assert torch.equal(stored.keys, whole.keys[:, :, 1:])
    assert torch.equal(stored.values, whole.values[:, :, 1:])
