"""A question to a context: how it is asked under an offset, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from kvpareto.cache.store import Segment
from kvpareto.jobs import RefusedError
from kvpareto.measure.fidelity import kl_nats
from kvpareto.measure.scores import score
from kvpareto.merge.chunked import ChunkedCache, Positions, Watch, chunked_cache, unwatched
from kvpareto.merge.context import Context
from kvpareto.merge.forward import answer, forward
from kvpareto.merge.offset import Offset
from kvpareto.merge.offsets.concat import Concat
from kvpareto.models.families import trained_context
from kvpareto.reuse.answer import greedy
from kvpareto.reuse.bench import Bench
from kvpareto.reuse.fuse import prefill
from kvpareto.reuse.precompute import encode
from kvpareto.text.tasks.item import Item, TaskItems


@dataclass
class Weights:
    """L of every block for the last query, before and after the offset."""

    before: list[torch.Tensor] = field(default_factory=list)
    after: list[torch.Tensor] = field(default_factory=list)

    def watch(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self.before.append(before[:, -1])
        self.after.append(after[:, -1])

    def mass(self, lses: list[torch.Tensor], blocks: int, chosen: Sequence[int]) -> float:
        """Share of all attention that chosen chunks get: mean over layers and heads.

        Args:
            lses: `before` or `after`.
            blocks: in each layer: prefix, question, chunks.
        """
        heads = len(lses[0])
        shares = torch.stack(lses).view(-1, blocks, heads).softmax(dim=1)
        return float(shares[:, [2 + number for number in chosen]].sum(1).mean())


@dataclass
class Encoded:
    """The prefix and the chunks of an item, encoded apart once for all arms and subsets."""

    bench: Bench
    stored: bool
    known: dict[tuple[tuple[int, ...], ...], Segment] = field(default_factory=dict)

    def segments(self, item: Item) -> tuple[Segment | None, list[Segment]]:
        """The prefix, if there is one, and each chunk."""
        prefix = self._segment((), item.prefix) if item.prefix else None
        before = self.bench.source.before_chunks(item)
        return prefix, [self._segment(before, chunk) for chunk in item.chunks]

    def _segment(self, before: tuple[int, ...], tokens: tuple[int, ...]) -> Segment:
        if (before, tokens) not in self.known:
            source = self.bench.source
            self.known[before, tokens] = (
                source.segment(before, tokens)
                if self.stored
                else encode(source.blocks, torch.tensor([*before, *tokens]), len(before), False)
            )
        return self.known[before, tokens]


@dataclass(frozen=True)
class Asked:
    """A question to a context, whose chunks stand in one of the two ways.

    Attributes:
        task: how it is answered; None: its tokens are scored instead.
    """

    encoded: Encoded
    task: TaskItems | None
    context: Context
    positions: Positions

    @property
    def bench(self) -> Bench:
        return self.encoded.bench

    def cache(self) -> ChunkedCache:
        """A new cache with the context, which nothing has been asked yet."""
        return self._encoded.fork()

    @cached_property
    def _encoded(self) -> ChunkedCache:
        prefix, chunks = self.encoded.segments(self.context.item)
        blocks, seeds = self.bench.blocks, self.context.seeds
        # Stacked once for all arms.
        return chunked_cache(blocks, prefix, chunks, self.positions, seeds).stacked()

    def ask(self, cache: ChunkedCache, offset: Offset, watch: Watch = unwatched) -> torch.Tensor:
        """Logits after each token of the question, [tokens, vocab]."""
        question = torch.tensor(self.context.item.question)
        # All chunks at once: a study asks many questions, and memory is measured elsewhere.
        return forward(self.bench.blocks, cache, question, offset, at_once=True, watch=watch)

    @cached_property
    def reference(self) -> torch.Tensor:
        """Logits of full attention over the same keys, concatenated."""
        return self.ask(self.cache().concatenated(), Concat())

    def row(self, offset: Offset) -> dict[str, Any]:
        """What an arm makes of the question: a row of its table."""
        if self.task is None and offset.deletes:
            raise RefusedError(
                "a text is scored in one pass: there is no later query that a deleted chunk is "
                "missing for"
            )
        item = self.context.item
        weights = Weights()
        if offset.way == "prefill":
            found, end = self._prefilled(), len(item.ids)
        else:
            cache = self.cache()
            end = cache.position + len(item.question)
            if offset.way == "concatenation":
                cache = cache.concatenated()
            found = self.outcome(cache, offset, weights.watch)
        longest = end + (self.task.max_new_tokens if self.task else 0)
        row = {
            "item": item.id,
            "chunks": len(item.chunks),
            "gold_chunks": len(self.context.gold),
            "tokens": len(item.ids),
            "extrapolating": longest > trained_context(self.bench.model),
            **found,
        }
        if offset.way == "chunks" and self.context.gold:
            blocks = 2 + len(item.chunks)
            for name, lses in (("gold_mass_before", weights.before), ("gold_mass", weights.after)):
                row[name] = weights.mass(lses, blocks, self.context.gold)
        return row

    def outcome(
        self, cache: ChunkedCache, offset: Offset, watch: Watch = unwatched
    ) -> dict[str, Any]:
        """Score and KL of what a cache makes of the question.

        The cache has then seen the question, and the answer but for its last token.

        Args:
            watch: of the question's pass.
        """
        logits = self.ask(cache, offset, watch)
        if self.task is None:
            return self._losses(logits)
        tokens = self._reply(self.task, cache, logits[-1], offset)
        return self._judged(self.task, logits[-1], tokens)

    def score(self, cache: ChunkedCache, offset: Offset) -> float:
        """Of the answer alone; for questions of a task. The cache as after `outcome`."""
        assert self.task is not None
        logits = self.ask(cache, offset)
        tokens = self._reply(self.task, cache, logits[-1], offset)
        return self._score(self.task, self.bench.text(tokens, self.task.stop))

    def _reply(
        self, task: TaskItems, cache: ChunkedCache, logits: torch.Tensor, offset: Offset
    ) -> list[int]:
        ends = self.bench.ends(task.stop)
        blocks, most = self.bench.blocks, task.max_new_tokens
        return answer(blocks, cache, logits, offset, most, ends, at_once=True)

    def _prefilled(self) -> dict[str, Any]:
        """The outcome of the model's own prefill."""
        model, item = self.bench.model, self.context.item
        if self.task is None:
            with torch.inference_mode():
                logits = model(input_ids=item.ids[None].to(model.device)).logits[0]
            return self._losses(logits[-len(item.question) :])
        last, layers = prefill(model, item)
        ends = self.bench.ends(self.task.stop)
        tokens = greedy(model, last, layers, len(item.ids), self.task.max_new_tokens, ends)
        return self._judged(self.task, last, tokens)

    def _losses(self, logits: torch.Tensor) -> dict[str, Any]:
        wanted = torch.tensor(self.context.item.question[1:], device=logits.device)
        loss = cross_entropy(logits[:-1].float(), wanted)
        return {"score": float(loss), "kl_to_full": kl_nats(self.reference[:-1], logits[:-1])}

    def _judged(self, task: TaskItems, logits: torch.Tensor, tokens: list[int]) -> dict[str, Any]:
        prediction = self.bench.text(tokens, task.stop)
        return {
            "score": self._score(task, prediction),
            "kl_to_full": kl_nats(self.reference[-1], logits),
            "prediction": prediction,
        }

    def _score(self, task: TaskItems, prediction: str) -> float:
        item = self.context.item
        return score(task.score, prediction, item.answers, item.classes)
