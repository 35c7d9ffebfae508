"""Quality of merge arms: every item and stretch of text, at every number of chunks."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kvpareto.jobs import failure, progress
from kvpareto.merge.arms import built, setting_id
from kvpareto.merge.asking import Asked, Encoded
from kvpareto.merge.context import Context, last_chunks, windows, with_chunks
from kvpareto.merge_settings import WindowSettings
from kvpareto.records import write_json, write_parquet
from kvpareto.reuse.bench import Bench
from kvpareto.text.tasks.item import TaskItems

log = logging.getLogger(__name__)

NLL = "nll_nats"
"""The score of a text: mean loss of its scored tokens."""

ITEM_COLUMNS = (
    "item", "chunks", "gold_chunks", "tokens", "extrapolating", "score", "kl_to_full",
    "gold_mass_before", "gold_mass", "prediction",
)  # fmt: skip


def contexts_of_task(task: TaskItems, chunks: Iterable[int]) -> list[list[Context]]:
    """For each item, its context at each number of chunks."""
    return [[with_chunks(item, count) for count in chunks] for item in task.items]


def contexts_of_text(
    ids: torch.Tensor, settings: WindowSettings, chunks: Sequence[int], bos: int | None
) -> list[list[Context]]:
    """For each window of a text, its context at each number of chunks.

    Args:
        ids: [documents, tokens].
        bos: stands first in every document, and in every window, if the tokenizer has one.
    """
    documents = [row[1:] if row[0] == bos else row for row in ids]
    items = windows(documents, settings, max(chunks), bos)
    return [[last_chunks(item, count) for count in chunks] for item in items]


def run_merge(
    bench: Bench,
    tasks: dict[str, TaskItems],
    texts: dict[str, torch.Tensor],
    arms: list[dict[str, Any]],
    folders: list[Path],
) -> None:
    """Measure arms of one method and write items.parquet, setting.json and summary.json of each.

    An arm that raises is a result: its status says so, and its table is empty.

    Args:
        tasks: by name.
        texts: token ids of each, [documents, tokens].
        arms: task (or text), offset and setting of each.
        folders: where each arm's results go.
    """
    # Arms on one subject share its encoded chunks and its reference.
    order = sorted(zip(arms, folders, strict=True), key=lambda pair: _subject(pair[0]))
    for _, group in itertools.groupby(order, key=lambda pair: _subject(pair[0])):
        pairs = list(group)
        tables = _tables(bench, tasks, texts, [arm for arm, _ in pairs])
        for (arm, folder), (frame, status, why) in zip(pairs, tables, strict=True):
            task = tasks.get(arm["task"])
            write_parquet(folder / "items.parquet", frame)
            write_json(folder / "setting.json", arm)
            summary = {
                **{key: arm[key] for key in ("model", "task", "offset")},
                "setting": setting_id(arm["offset"], arm["setting"]),
                "score_name": NLL if task is None else task.score,
                "items": int(frame["item"].nunique()),
                "status": status,
                "why": why,
            }
            write_json(folder / "summary.json", summary)


def _subject(arm: dict[str, Any]) -> tuple[Any, ...]:
    setting = arm["setting"]
    return arm["task"], setting["positions"], setting["chunks"], repr(setting.get("windows"))


def _tables(
    bench: Bench,
    tasks: dict[str, TaskItems],
    texts: dict[str, torch.Tensor],
    arms: list[dict[str, Any]],
) -> Iterator[tuple[pd.DataFrame, str, str]]:
    """Items table, status and reason of each arm; all arms are on one subject."""
    name, setting = arms[0]["task"], arms[0]["setting"]
    task = tasks.get(name)
    rows: list[list[dict[str, Any]]] = [[] for _ in arms]
    failed: dict[int, tuple[str, str]] = {}
    nested: list[list[Context]] = []
    try:
        if task is not None:
            nested = contexts_of_task(task, setting["chunks"])
        else:
            cut = WindowSettings(**setting["windows"])
            nested = contexts_of_text(texts[name], cut, setting["chunks"], bench.source.bos)
    except Exception as error:
        log.exception("%s failed", name)
        failed = dict.fromkeys(range(len(arms)), failure(error))
    report = progress(f"{arms[0]['offset']} on {name}, {setting['positions']} positions, items")
    for done, contexts in enumerate(nested, start=1):
        encoded = Encoded(bench, stored=task is not None)
        for context in contexts:
            asked = Asked(encoded, task, context, setting["positions"])
            for index, arm in enumerate(arms):
                if index in failed:
                    continue
                try:
                    rows[index].append(asked.row(built(arm)))
                except Exception as error:
                    log.exception("%s failed on %s", arm["offset"], context.item.id)
                    failed[index] = failure(error)
        report(done, len(nested))
    for index, own in enumerate(rows):
        status, why = failed.get(index, ("ok", ""))
        yield pd.DataFrame(own if status == "ok" else [], columns=list(ITEM_COLUMNS)), status, why
