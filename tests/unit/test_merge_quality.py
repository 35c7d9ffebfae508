"""Merge arms from configuration to table, and the probes of deletion, on tiny models."""

from __future__ import annotations

import math
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import TypeAdapter
from tests.tiny import tiny_bench, tiny_item

from kvpareto.claim_settings import Test
from kvpareto.claims.evidence import evidence
from kvpareto.claims.study import Study
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.merge.arms import MergeArm, merge_arms, merge_batches
from kvpareto.merge.probing import Probing
from kvpareto.merge.quality import ITEM_COLUMNS, run_merge
from kvpareto.merge_settings import (
    MergeArms,
    MergeGroup,
    MergeMemorySettings,
    MergeProbeSettings,
    WindowSettings,
)
from kvpareto.records import read_json, read_parquet, write_parquet
from kvpareto.report.merge_tables import MEMORY, MERGE_COLUMNS, merge_table
from kvpareto.settings import SettingsError
from kvpareto.text.tasks.item import TaskItems

STATISTICS = StatisticsSettings(resamples=50)
CUT = WindowSettings(chunk_tokens=6, scored_tokens=4, per_document=2)


def task(items: int = 3, support: bool = True) -> TaskItems:
    made = []
    for seed in range(items):
        item = tiny_item(chunks=(6, 6, 6, 6), seed=seed)
        start, _ = item.spans[seed % 4]
        where = ((start + 1, start + 3),) if support else ()
        made.append(replace(item, id=f"i{seed}", answers=("5",), support=where))
    return TaskItems("string_match_all", 3, (), tuple(made))


def arm(offset, task="t", positions="shared", chunks=(1, 3), **parameters) -> MergeArm:
    setting = {**parameters, "positions": positions, "chunks": list(chunks)}
    if task == "text":
        setting["windows"] = CUT.model_dump()
    return MergeArm("m", task, offset, setting)


def run(tmp_path, *arms, the_task=None):
    run_merge(
        tiny_bench(tmp_path / "store"),
        {"t": the_task or task()},
        {"text": torch.randint(2, 97, (2, 60), generator=torch.Generator().manual_seed(3))},
        [vars(one) for one in arms],
        [tmp_path / "merge" / one.path for one in arms],
    )
    return [
        (read_parquet(tmp_path / "merge" / one.path / "items.parquet"),
         read_json(tmp_path / "merge" / one.path / "summary.json"))
        for one in arms
    ]  # fmt: skip


def test_every_item_is_asked_at_every_number_of_chunks(tmp_path):
    ((items, summary),) = run(tmp_path, arm("energy_deficit", top_k=2))
    assert tuple(items.columns) == ITEM_COLUMNS
    assert sorted(items.groupby("chunks")["item"].count().items()) == [(1, 3), (3, 3)]
    assert (summary["status"], summary["items"]) == ("ok", 3)
    assert (items["gold_mass"].astype(float).between(0, 1)).all()


def test_full_attention_over_the_same_keys_is_what_kl_is_held_against(tmp_path):
    (zero, _), (concat, _), (gated, _), (full, _) = run(
        tmp_path, arm("zero"), arm("concat"), arm("energy_deficit", top_k=2), arm("full")
    )
    assert zero["kl_to_full"].max() < 1e-6
    assert concat["kl_to_full"].max() < 1e-6
    assert gated["kl_to_full"].max() > 1e-3
    assert full["kl_to_full"].max() > 1e-3
    assert (zero["gold_mass"] == zero["gold_mass_before"]).all()


def test_an_offset_that_spares_one_chunk_takes_nothing_from_it(tmp_path):
    (decrowd, _), (gated, _) = run(tmp_path, arm("decrowd"), arm("energy_deficit", top_k=2))
    alone = decrowd["chunks"] == 1
    assert decrowd.loc[alone, "kl_to_full"].max() < 1e-6
    lost = gated[alone]["gold_mass_before"] - gated[alone]["gold_mass"]
    assert (lost.astype(float) > 0.01).all()


def test_a_text_is_scored_by_its_loss_on_the_same_tokens(tmp_path):
    (zero, summary), (full, _) = run(tmp_path, arm("zero", "text"), arm("full", "text"))
    assert summary["score_name"] == "nll_nats"
    assert len(zero) == 2 * 2 * 2  # documents, windows, numbers of chunks
    assert zero["item"].tolist() == full["item"].tolist()
    assert zero["score"].between(1, 15).all()
    assert zero["gold_mass"].isna().all()


def test_positions_beyond_the_trained_context_are_marked(tmp_path):
    where = {"chunks": (1, 4)}
    (near, _), (far, _) = run(
        tmp_path, arm("zero", **where), arm("zero", positions="sequential", **where),
        the_task=replace(task(), max_new_tokens=40),
    )  # fmt: skip
    assert not near["extrapolating"].any()  # 4 + 6 + 6 + 40 of 64
    assert far["extrapolating"].tolist() == [False, True] * 3


def test_an_arm_that_cannot_run_is_a_row_with_its_reason(tmp_path):
    good, bad = arm("zero", chunks=(1, 2)), arm("zero", chunks=(1, 9))
    (_, fine), (items, summary) = run(tmp_path, good, bad)
    assert fine["status"] == "ok"
    assert summary["status"] != "ok"
    assert "chunks: 9" in summary["why"]
    assert items.empty
    ((_, lost),) = run(tmp_path / "x", good, the_task=task(support=False))
    assert "no support" in lost["why"]


def built(tmp_path, *arms, memory=None):
    run(tmp_path, *arms)
    rows = [vars(one) | {"path": one.path, "alias_of": ""} for one in arms]
    return merge_table(tmp_path, rows, memory or {}, STATISTICS)


def test_the_table_has_a_row_for_each_number_of_chunks(tmp_path):
    one, text = arm("hard_drop", top_k=1, threshold=0.5, judge="head"), arm("zero", "text")
    memory = tmp_path / "memory.parquet"
    write_parquet(
        memory,
        pd.DataFrame([{"offset": "concat", "run": "concatenated", "chunks": 8, "status": "ok",
                       "peak_extra_bytes": 9}]),
    )  # fmt: skip
    table = built(tmp_path, one, text, arm("zero"), memory={"m": memory})
    assert tuple(table.columns[: len(MERGE_COLUMNS)]) == MERGE_COLUMNS
    assert table["chunks"].tolist() == [1, 3, 1, 3, 1, 3, 8]
    assert table["threshold"].tolist()[:2] == [0.5, 0.5]
    losses = read_parquet(tmp_path / "merge" / text.path / "items.parquet")
    alone = losses.loc[losses["chunks"] == 1, "score"].mean()
    assert table["score"][2] == pytest.approx(math.exp(alone))
    assert table["score_lo"][2] <= table["score"][2] <= table["score_hi"][2]
    assert table["task"].tolist()[-1] == MEMORY
    zero = table[table["arm"] == "zero"]
    asked, scored = zero[zero["task"] == "t"], zero[zero["task"] == "text"]
    assert (asked[["score_delta", "score_delta_lo", "score_delta_hi"]] == 0).all(axis=None)
    assert (scored[["ppl_delta_pct", "ppl_delta_lo", "ppl_delta_hi"]] == 0).all(axis=None)
    assert set(scored["score_name"]) == {"ppl"}
    points = table["score"][1] - table["score"][5]
    assert table["score_delta"][1] == pytest.approx(points)


def test_the_ledger_compares_arms_at_equal_chunks_and_positions(tmp_path):
    arms = [arm("zero"), arm("energy_deficit", top_k=2), arm("mean_field")]
    table = built(tmp_path, *arms)
    study = Study(
        pd.DataFrame(),
        merge=table,
        merged=lambda path: read_parquet(tmp_path / "merge" / path / "items.parquet"),
        statistics=STATISTICS,
    )

    def rows(metric, reference, expect):
        wanted = {"metric": metric, "arm": {"offset": "energy_deficit"}, "reference": reference,
                  "expect": expect}  # fmt: skip
        return evidence(TypeAdapter(Test).validate_python(wanted), study)

    found = rows("merge_kl", {"offset": "zero"}, "not_higher")
    assert len(found) == 2
    assert all(row["estimate"] > 0 for row in found)
    mass = rows("merge_mass", {"offset": "mean_field"}, "higher")
    items = [read_parquet(tmp_path / "merge" / one.path / "items.parquet") for one in arms]
    means = [own.groupby("chunks")["gold_mass"].mean() for own in items]
    assert mass[1]["estimate"] == pytest.approx(100 * (means[1][3] - means[2][3]))
    # A single chunk has one target whatever is taken for it.
    assert mass[0]["estimate"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("probe", ["forgetting", "head_conflict", "single_chunk", "sink_collapse"])
def test_a_probe_returns_finite_rows(probe, tmp_path):
    settings = MergeProbeSettings(chunks=3, threshold=0.1, sink_tokens=2)
    frame = import_module(f"kvpareto.merge.probes.{probe}").run(
        Probing(probe, "m", "t", tiny_bench(tmp_path), task(4), settings, STATISTICS)
    )
    assert (frame["probe"] == probe).all()
    assert np.isfinite(frame["value"].astype(float)).all()
    assert not frame.duplicated(["setting", "measure"]).any()
    values = frame.set_index(["setting", "measure"])["value"]
    if probe == "single_chunk":
        assert values["K1", "offset"] == pytest.approx(-math.log(2), abs=1e-5)
        assert values["K1", "lost_mass"] > 0
    if probe == "forgetting":
        assert values["zero", "gold_deleted"] == 0
        lost, known = (
            values[name, "asked_first"] - values[name, "asked_second"]
            for name in ("hard_drop-head", "zero")
        )
        assert values["zero", "forgotten"] == 0
        assert values["hard_drop-head", "forgotten"] == pytest.approx(lost - known)
        assert values["hard_drop-head", "gold_deleted"] > 0
    if probe == "head_conflict":
        assert values["K2-t0.1", "kept_by_head"] < 100
        assert values["K2-t0.1", "disagreement"] > 0
    if probe == "sink_collapse":
        assert values["both", "mass"] == pytest.approx(
            values["prompt", "mass"] + values["first_chunk", "mass"]
        )


def study_settings(**groups):
    return SimpleNamespace(
        merge={name: MergeGroup.model_validate(group) for name, group in groups.items()},
        merge_memory=MergeMemorySettings(),
    )


def group(*arms, **more):
    about = {"models": ["m"], "tasks": ["t"], "positions": ["shared"], "chunks": [1]}
    return about | {"arms": list(arms)} | more


def test_arms_are_crossed_and_yardsticks_are_always_there():
    arms = merge_arms(
        study_settings(
            a=group({"offset": "energy_deficit", "top_k": [1, 2]}, {"offset": "ape"}),
            b=group({"offset": "ape"}),
        )
    )
    assert sorted(one.offset for one in arms) == [
        "ape", "concat", "energy_deficit", "energy_deficit", "full", "zero",
    ]  # fmt: skip
    assert len({one.path for one in arms}) == len(arms)
    (gated,) = (batch for batch in merge_batches(arms) if batch.offset == "energy_deficit")
    assert len(gated.arms) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"offset": "energy"}, r"merge\.a\.arms\.0: no offset 'energy'"),
        ({"offset": "ape", "top_k": [1]}, "ape has no parameter 'top_k'"),
        ({"offset": "energy_deficit", "top_k": 1}, r"write \[1\]"),
        ({"offset": "energy_deficit", "top_k": [0]}, "top_k 0 must be at least 1"),
    ],
)
def test_impossible_arms_are_refused_with_their_place(wrong, message):
    with pytest.raises(SettingsError, match=message):
        merge_arms(study_settings(a=group(wrong)))


def test_a_group_without_tasks_and_texts_is_refused():
    with pytest.raises(ValueError, match="name tasks or texts"):
        MergeGroup.model_validate(group({"offset": "ape"}, tasks=[]))


def test_memory_arms_are_checked_too():
    settings = study_settings(a=group({"offset": "ape"}))
    settings.merge_memory = MergeMemorySettings(arms=[MergeArms(offset="none_such")])
    with pytest.raises(SettingsError, match=r"merge_memory\.arms\.0: no offset 'none_such'"):
        merge_arms(settings)


def test_a_text_has_no_later_query_so_deletion_is_refused_on_it(tmp_path):
    ((items, summary),) = run(
        tmp_path, arm("hard_drop", "text", top_k=1, threshold=0.5, judge="head")
    )
    assert (summary["status"], items.empty) == ("refused", True)
    assert "later query" in summary["why"]
