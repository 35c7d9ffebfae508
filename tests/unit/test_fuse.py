"""The fusion forward: exact where it must be, and the right mask for scattered rows where not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.dense import dense, encoded_in_place
from tests.tiny import VARIANTS, tiny_item, tiny_source, tiny_variant
from transformers import AutoModelForCausalLM, PreTrainedModel

from kvpareto.attention.masks import attend
from kvpareto.attention.rope import turned
from kvpareto.cache.store import Segment
from kvpareto.models.convert import convert
from kvpareto.models.families import Blocks, blocks
from kvpareto.reuse.answer import greedy
from kvpareto.reuse.fuse import Prefilled, assemble, fuse, prefill
from kvpareto.reuse.strategy import Layer, Strategy, strategy_of
from kvpareto.text.tasks.item import Item

ITEM = tiny_item()  # prefix 0-3, chunks 4-12, 13-24 and 25-31, question 32-37
CHOSEN = (6, 7, 13, 18, 26)
BUDGETED = ["blend", "debug", "debug_perhead", "oracle", "random", "surprisal_chunk", "tail"]
ARMS = [("surprisal_chunk", 0), ("oracle", 0), ("blend", 1), ("debug", 1)]


@dataclass(frozen=True)
class Given(Strategy):
    """Tokens that a test chose."""

    chosen: tuple[int, ...] = ()

    def choose(self, view):
        return torch.tensor(self.chosen, dtype=torch.long)


@dataclass(frozen=True)
class Case:
    model: PreTrainedModel
    item: Item
    stored: Segment
    logits: torch.Tensor
    truth: list[Layer]

    @property
    def blocks(self) -> Blocks:
        return blocks(self.model)

    @property
    def rotated(self) -> list[Layer]:
        """The stored rows at their positions in the prompt."""
        angles = self.blocks.angles(torch.arange(len(self.item.ids)))
        pairs = zip(self.stored.keys, self.stored.values, strict=True)
        return [Layer(turned(key, *angles), value) for key, value in pairs]

    def fuse(self, strategy: Strategy, **options) -> Prefilled:
        truth = lambda: self.truth  # noqa: E731
        return fuse(self.blocks, self.item, self.stored, strategy, truth=truth, **options)


def prepare(model: PreTrainedModel, item: Item, folder: Path, mode="bos") -> Case:
    segments = tiny_source(model, folder, mode).segments(item)
    return Case(model, item, assemble(segments, len(item.ids)), *prefill(model, item))


@pytest.fixture(scope="module", params=VARIANTS)
def case(request, tmp_path_factory) -> Case:
    return prepare(tiny_variant(request.param), ITEM, tmp_path_factory.mktemp("store"))


@pytest.fixture
def model(case) -> PreTrainedModel:
    return case.model


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=0)


def close_layers(actual: list[Layer], expected: list[Layer], rows: slice = slice(None)) -> None:
    for one, other in zip(actual, expected, strict=True):
        close(one.keys[:, rows], other.keys[:, rows])
        close(one.values[:, rows], other.values[:, rows])


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@torch.inference_mode()
def test_the_walk_through_the_blocks_is_the_models_own_forward(case):
    parts, ids = case.blocks, case.item.ids
    angles = parts.angles(torch.arange(len(ids)))
    back = torch.arange(len(ids))[:, None] - torch.arange(len(ids))
    hidden = parts.embed(ids)
    for layer, window in enumerate(parts.windows):
        query, key, value = parts.project(layer, hidden)
        query, key = turned(query, *angles), turned(key, *angles)
        seen = (back >= 0) & (back < (window or len(ids)))
        hidden = parts.finish(layer, hidden, attend(query, key, value, seen, parts.softmax_scale))
    close(parts.logits(hidden), case.model(input_ids=ids[None]).logits)


def test_the_store_has_the_first_layer_and_the_prefix_exactly(case):
    known = slice(0, case.item.document[1])
    close_layers(case.rotated[:1], case.truth[:1], known)
    close_layers(case.rotated, case.truth, slice(0, len(case.item.prefix)))
    later = slice(*case.item.spans[1])
    assert distance(case.rotated[2].values[:, later], case.truth[2].values[:, later]) > 1e-2


def with_question(case: Case, folder: Path) -> Case:
    """With the question encoded alone too."""
    source = tiny_source(case.model, folder)
    segments = [*source.segments(case.item), source.alone(case.item)]
    return replace(case, stored=assemble(segments, len(case.item.ids)))


def test_a_stored_segment_moved_is_one_encoded_at_its_place(case, tmp_path):
    close_layers(with_question(case, tmp_path).rotated, encoded_in_place(case.model, case.item))


@pytest.mark.parametrize(("name", "check"), ARMS)
def test_with_ratio_1_it_is_the_full_prefill(name, check, case):
    done = case.fuse(strategy_of(name, {"ratio": 1.0, "check_layer": check}))
    close(done.logits, case.logits)
    close_layers(done.layers, case.truth)


def test_with_ratio_1_the_greedy_answer_is_the_models_own(case):
    ids = case.item.ids
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 1}
    expected = case.model.generate(ids[None], **options)[0, len(ids) :].tolist()
    for strategy in (strategy_of("none", {}), strategy_of("blend", {"ratio": 1.0})):
        done = case.fuse(strategy)
        answer = greedy(case.model, done.logits, done.layers, len(ids), 12, frozenset({1}))
        assert answer == expected


def test_an_answer_ends_with_the_token_that_ends_it(case):
    done = case.fuse(strategy_of("none", {}))
    first = greedy(case.model, done.logits, done.layers, done.length, 12, frozenset())
    assert len(first) == 12
    end = first[3]
    cut = greedy(case.model, done.logits, done.layers, done.length, 12, frozenset({end}))
    assert cut == first[: first.index(end) + 1]


def test_full_reuse_of_a_single_chunk_after_bos_is_the_full_prefill(model, tmp_path):
    case = prepare(model, tiny_item(prefix=1, chunks=(20,)), tmp_path)
    done = case.fuse(strategy_of("full", {}))
    close(done.logits, case.logits)
    close_layers(done.layers, case.truth)


def test_after_a_longer_prefix_a_chunk_must_be_encoded_after_it_too(model, tmp_path):
    item = tiny_item(prefix=6, chunks=(20,))
    after_bos = prepare(model, item, tmp_path, "bos")
    assert distance(after_bos.fuse(strategy_of("full", {})).logits, after_bos.logits) > 1e-2
    after_prefix = prepare(model, item, tmp_path, "prompt")
    close(after_prefix.fuse(strategy_of("full", {})).logits, after_prefix.logits)


def test_after_bos_the_first_chunks_values_do_not_differ(model, tmp_path):
    case = prepare(model, tiny_item(prefix=1, chunks=(10, 12)), tmp_path)
    first, second = (slice(*span) for span in case.item.spans)
    new, old = case.truth[1].values, case.rotated[1].values
    close(old[:, first], new[:, first])
    assert distance(old[:, second], new[:, second]) > 1e-2


@pytest.mark.parametrize("check", [0, 1, 2])
def test_scattered_rows_equal_the_dense_reference(check, case):
    done = case.fuse(Given(check_layer=check, chosen=CHOSEN))
    logits, layers = dense(case.model, case.item, done.rows.tolist(), check)
    close(done.logits, logits)
    close_layers(done.layers, layers)
    assert distance(done.logits, case.logits) > 1e-2


def test_concatenation_computes_the_last_token_alone(case, tmp_path):
    done = with_question(case, tmp_path).fuse(strategy_of("cat", {}))
    logits, layers = dense(case.model, case.item, [37], 0)
    close(done.logits, logits)
    close_layers(done.layers[1:], layers[1:])


def changed(case: Case, token: int, folder: Path) -> Case:
    """The same prompt but for one document token."""
    chunks = [list(chunk) for chunk in case.item.chunks]
    for chunk, (start, end) in zip(chunks, case.item.spans, strict=True):
        if start <= token < end:
            chunk[token - start] = 2 if chunk[token - start] != 2 else 3
    item = replace(case.item, id="changed", chunks=tuple(map(tuple, chunks)))
    return prepare(case.model, item, folder)


def influence(case: Case, token: int, strategy: Strategy, folder: Path) -> tuple[float, float]:
    """Largest change of what layers after the check layer hold of rows before and after `token`."""
    one, other = case.fuse(strategy), changed(case, token, folder).fuse(strategy)
    before, after = one.rows[one.rows < token], one.rows[one.rows > token]
    pairs = list(zip(one.layers, other.layers, strict=True))[strategy.check_layer + 1 :]
    earlier, later = (
        max(
            distance(getattr(a, part)[:, rows], getattr(b, part)[:, rows])
            for a, b in pairs
            for part in ("keys", "values")
        )
        for rows in (before, after)
    )
    return earlier, later


@pytest.mark.parametrize(("token", "check"), [(18, 0), (20, 1)])  # chosen, and not
def test_a_later_token_does_not_reach_earlier_rows(token, check, case, tmp_path):
    earlier, later = influence(case, token, Given(check_layer=check, chosen=CHOSEN), tmp_path)
    assert earlier < 1e-6
    assert later > 1e-2


def bottom_right(rows: torch.Tensor, length: int, window: int | None = None) -> torch.Tensor:
    """The causal mask of the usual kernels: the queries are taken for the last tokens."""
    back = torch.arange(length - len(rows), length)[:, None] - torch.arange(length)
    return (back >= 0) & (back < (window or length))


def test_a_bottom_right_mask_shows_between_0_and_1_and_not_at_1(case, tmp_path, monkeypatch):
    monkeypatch.setattr("kvpareto.reuse.fuse.visible", bottom_right)
    earlier, _ = influence(case, 20, Given(chosen=CHOSEN), tmp_path)
    assert earlier > 1e-2
    everything = case.fuse(strategy_of("random", {"ratio": 1.0}))
    close(everything.logits, case.logits)


@pytest.mark.parametrize(("name", "check"), ARMS)
def test_only_the_chosen_rows_of_later_layers_are_new(name, check, case):
    before = Segment(*(tensor.clone() for tensor in case.stored.tensors.values()))
    done = case.fuse(strategy_of(name, {"ratio": 0.3, "check_layer": check}), seed=5)
    end = case.item.document[1]
    rows = done.rows.tolist()
    assert len(rows) == 8 + len(case.item.question)  # floor(0.3 * 28)
    assert rows == sorted(set(rows))
    assert rows[8:] == list(range(end, done.length))
    close_layers(done.layers[: check + 1], case.truth[: check + 1])
    rest = [j for j in range(end) if j not in rows]
    for new, old in list(zip(done.layers, case.rotated, strict=True))[check + 1 :]:
        assert torch.equal(new.keys[:, rest], old.keys[:, rest])
        assert torch.equal(new.values[:, rest], old.values[:, rest])
        assert distance(new.values[:, rows], old.values[:, rows]) > 1e-2
    for name, tensor in before.tensors.items():
        assert torch.equal(case.stored.tensors[name], tensor)


@pytest.mark.parametrize("check", [0, 1])
def test_with_ratio_0_all_strategies_are_full_reuse(check, case):
    full = case.fuse(strategy_of("full", {"check_layer": check}))
    for name in BUDGETED:
        done = case.fuse(strategy_of(name, {"ratio": 0.0, "check_layer": check}))
        assert torch.equal(done.logits, full.logits), name
        assert torch.equal(done.rows, torch.arange(32, 38)), name


def test_the_families_agree_on_converted_weights(tmp_path):
    tiny_variant("llama").save_pretrained(tmp_path / "llama")
    (tmp_path / "llama" / "tokenizer.json").write_text("{}")
    for family in ("mistral", "qwen2"):
        convert(tmp_path / "llama", family, tmp_path / family)
    one, *others = (
        prepare(AutoModelForCausalLM.from_pretrained(tmp_path / name), ITEM, tmp_path / "store")
        for name in ("llama", "mistral", "qwen2")
    )
    for name in BUDGETED:
        strategy = strategy_of(name, {"ratio": 0.3})
        expected = one.fuse(strategy)
        for other in others:
            done = other.fuse(strategy)
            assert torch.equal(done.rows, expected.rows)
            close(done.logits, expected.logits)
            close_layers(done.layers, expected.layers)


def test_each_part_of_the_work_is_told_when_it_has_ended(case):
    parts: list[str] = []
    case.fuse(strategy_of("blend", {}), mark=parts.append)
    assert parts == ["rotate", "recompute", "select", "recompute", "first_token"]
