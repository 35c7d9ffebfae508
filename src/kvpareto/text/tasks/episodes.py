"""Items from retrieval episodes: where their sentences lie is controlled chunk by chunk.

What separates reuse strategies is information that crosses chunks: a sentence that cannot be
understood without an earlier one, encoded in a chunk that does not hold it.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvpareto.task_settings import Crossing, EpisodeTask
from kvpareto.text.corpora import TextError, stdlib_held_out
from kvpareto.text.prompts import Prompt
from kvpareto.text.tasks.episode import Episode, make, plant
from kvpareto.text.tasks.item import Item, TaskItems

_STEP: dict[Crossing, int] = {"same": 0, "adjacent": 1, "far": 2}
"""Chunks from a sentence to the next one of its unit."""


def build(settings: EpisodeTask, name: str, tokenizer: Any, prompt: Prompt) -> TaskItems:
    """The items of a task, cell by cell of its grid.

    Raises:
        TextError: an episode does not fit; with the numbers and what to change.
    """
    writer = _Writer(settings, name, tokenizer, prompt)
    depths: list[float | None] = [None] if settings.depths is None else list(settings.depths)
    cells = itertools.product(settings.lengths, settings.crossings, depths, settings.orders)
    items = [
        writer.item(number, index, *cell)
        for number, cell in enumerate(cells)
        for index in range(settings.items)
    ]
    return TaskItems(prompt.score, prompt.max_new_tokens, tuple(prompt.stop), tuple(items))


@dataclass
class _Writer:
    settings: EpisodeTask
    name: str
    tokenizer: Any
    prompt: Prompt

    def __post_init__(self) -> None:
        bos = self.tokenizer.bos_token_id
        self.prefix = (*([] if bos is None else [bos]), *self.ids(self.prompt.prefix))
        vocabulary = self.tokenizer.get_vocab()
        # How byte-level vocabularies spell a line's end, and those with byte fallback.
        self.line_ends = frozenset(
            i for text, i in vocabulary.items() if text.endswith("Ċ") or text == "<0x0A>"
        )
        text = stdlib_held_out("code", self.settings.documents)
        stream = [token for document in text for token in self.ids(document.text)]
        size = self.settings.chunk_tokens
        # Prompts share a pool of chunks, as requests to a retrieval system share documents.
        self.pool = [stream[i : i + size] for i in range(0, len(stream) - size + 1, size)]

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def item(
        self,
        cell: int,
        index: int,
        length: int,
        crossing: Crossing,
        depth: float | None,
        order: str,
    ) -> Item:
        # One seed for all cells: they differ in what they vary, not in the episode.
        task = zlib.crc32(self.name.encode())
        rng = np.random.default_rng([self.settings.seed, task, length, index])
        episode = make(self.settings.family, rng, self.settings.facts, questions=1)
        (asked,) = episode.questions
        # The space before a number is a token of its own: the first token that is compared with
        # the full prefill's shall be one that has to be known.
        answer = asked.answer.strip(" .")
        question = self.ids(asked.text + " " * answer[0].isdigit())
        chunks = (length - len(self.prefix) - len(question)) // self.settings.chunk_tokens
        layout = self._layout(episode, chunks, crossing, depth, rng)
        if chunks > len(self.pool):
            raise TextError(
                f"tasks.{self.name}: a prompt of {length} tokens takes {chunks} chunks, and "
                f"{', '.join(self.settings.documents)} have {len(self.pool)}; name more documents"
            )
        filler = [self.pool[i] for i in rng.choice(len(self.pool), size=chunks, replace=False)]
        texts, spans = [], []
        for chunk, here in enumerate(layout):
            ids, own = self._chunk(filler[chunk], [episode.facts[i] for i in here], rng, length)
            texts.append(tuple(ids))
            spans.append(dict(zip(here, own, strict=True)))
        turn = list(range(chunks))
        if order == "reversed":
            turn.reverse()
        elif order == "shuffled":
            turn = [int(i) for i in rng.permutation(chunks)]
        starts = np.cumsum([len(self.prefix), *(len(texts[i]) for i in turn)])
        support = sorted(
            (int(starts[position]) + start, int(starts[position]) + end)
            for position, chunk in enumerate(turn)
            for fact, (start, end) in spans[chunk].items()
            if fact in episode.support[0]
        )
        last = next(i for i, chunk in enumerate(turn) if episode.support[0][-1] in spans[chunk])
        return Item(
            id=f"{self.name}-{cell}-{index}",
            prefix=self.prefix,
            chunks=tuple(texts[i] for i in turn),
            question=tuple(question),
            answers=tuple(answer.split(", ")),
            support=tuple(support),
            traits={
                "length": length,
                "crossing": crossing if len(episode.support[0]) > 1 else "none",
                "order": order,
                "depth": round(last / max(1, chunks - 1), 3),
            },
        )

    def _chunk(
        self, filler: list[int], facts: list[str], rng: np.random.Generator, length: int
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """A chunk of filler and sentences, and where each sentence lies in it."""
        sentences = [self.ids(fact) for fact in facts]
        room = self.settings.chunk_tokens - sum(map(len, sentences))
        if room < 0:
            raise TextError(
                f"tasks.{self.name}: {len(facts)} sentences of {-room} tokens too many fall into a "
                f"chunk of {self.settings.chunk_tokens} tokens at length {length}; raise "
                "chunk_tokens or lower facts"
            )
        marked = [[-1 - i] * len(sentence) for i, sentence in enumerate(sentences)]
        # Where they lie is read off a copy in which sentence i is written as -1 - i.
        state = rng.bit_generator.state
        ids = plant(filler[:room], sentences, rng, self.line_ends)
        rng.bit_generator.state = state
        where = plant(filler[:room], marked, rng, self.line_ends)
        starts = [where.index(-1 - i) for i in range(len(sentences))]
        return ids, [
            (start, start + len(sentence))
            for start, sentence in zip(starts, sentences, strict=True)
        ]

    def _layout(
        self,
        episode: Episode,
        chunks: int,
        crossing: Crossing,
        depth: float | None,
        rng: np.random.Generator,
    ) -> list[list[int]]:
        """The sentences of every chunk, in order.

        Sentences that need each other make a unit, which spans as many chunks as `crossing` says;
        units follow each other and do not interleave. The asked unit starts at `depth`.
        """
        step = _STEP[crossing]
        units = list(_units(episode))
        spans = [step * (len(unit) - 1) for unit in units]
        asked = next(i for i, unit in enumerate(units) if episode.support[0][0] in unit)
        others = [int(i) for i in rng.permutation(len(units)) if i != asked]
        latest = chunks - 1 - spans[asked]
        start = None if depth is None else round(depth * latest)
        # In chunks of their own if there are enough, else the next unit may begin where one ends.
        for own in (1, 0):
            widths = [span + own for span in spans]
            # How many of the others can come before the asked unit, and where it can then start.
            ranges = [
                (sum(widths[i] for i in others[:n]), latest - sum(widths[i] for i in others[n:]))
                for n in range(len(units))
            ]
            fits = [
                n
                for n, (low, high) in enumerate(ranges)
                if low <= high and (start is None or low <= start <= high)
            ]
            if fits:
                break
        else:
            at = "" if depth is None else f" with one of them at depth {depth}"
            raise TextError(
                f"tasks.{self.name}: {len(units)} groups of sentences with crossing {crossing!r} "
                f"span {sum(spans) + 1} chunks{at}; a prompt has {chunks}: raise lengths, or lower "
                "facts or chunk_tokens"
            )
        count = int(rng.choice(fits))
        low, high = ranges[count]
        place = int(rng.integers(low, high + 1)) if start is None else start
        layout: list[list[int]] = [[] for _ in range(chunks)]
        behind = place + widths[asked]
        for side, begin, end in (
            (others[:count], 0, place),
            ([asked], place, behind),
            (others[count:], behind, chunks - 1 + own),
        ):
            spare = end - begin - sum(widths[i] for i in side)
            for unit, gap in zip(side, sorted(rng.integers(0, spare + 1, len(side))), strict=True):
                for offset, fact in enumerate(units[unit]):
                    layout[begin + int(gap) + step * offset].append(fact)
                begin += widths[unit]
        return layout


def _units(episode: Episode) -> Iterator[list[int]]:
    """Sentences connected by links, in order."""
    left = list(range(len(episode.facts)))
    while left:
        unit = [left.pop(0)]
        for first, second in episode.links:
            if first in unit and second in left:
                unit.append(second)
                left.remove(second)
        yield unit
