"""The leaf tables of the reuse part, and what the ledger makes of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from kvpareto.claim_settings import Test
from kvpareto.claims.evidence import evidence
from kvpareto.claims.study import Study
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.records import write_json, write_parquet
from kvpareto.report.reuse_tables import REUSE_COLUMNS, reuse_table, store_table

STATISTICS = StatisticsSettings(resamples=300)
SCORES = {"none": [1, 1, 1, 0] * 5, "blend": [1, 1, 0, 0] * 5, "random": [0, 0, 1, 0] * 5}


def answers(scores, kl=0.1):
    count = len(scores)
    return pd.DataFrame(
        {
            "item": [f"i{n}" for n in range(count)],
            "score": np.array(scores, dtype=float),
            "kl_first_token": kl,
            "top1_agreement": True,
            "kv_error": 0.25,
            "greedy_match": 0.5,
            "support_coverage": 1.0,
            "tokens": 500,
            "document_tokens": 400,
            "computed": [list(range(60))] * count,
        }
    )


def arm(root, strategy, task="boxes", scores=None, status="ok", **setting):
    setting = {"check_layer": 1, **setting, "drop": "none"}
    name = f"id-{strategy}"
    path = f"m/{task}/{strategy}/{name}"
    frame = answers(SCORES[strategy] if scores is None else scores)
    write_parquet(root / "reuse" / path / "items.parquet", frame)
    summary = {"setting": name, "items": len(frame), "score_name": "x", "status": status, "why": ""}
    write_json(root / "reuse" / path / "summary.json", summary)
    return {"path": path, "model": "m", "task": task, "strategy": strategy, "setting": setting,
            "drop": "none", "alias_of": ""}  # fmt: skip


def timing(root, strategy, task="boxes", ratio=0.5, tokens=500):
    row = {"strategy": strategy, "setting": f"id-{strategy}", "tokens": tokens, "ttft_ms": 10.0,
           "ttft_ratio": ratio, "ttft_ratio_lo": ratio - 0.02, "ttft_ratio_hi": ratio + 0.02,
           "status": "ok", "why": "", "machine": "here", "store_bytes": 1}  # fmt: skip
    write_parquet(root / "reuse_timing/m" / task / strategy / "timing.parquet", pd.DataFrame([row]))
    return {"model": "m", "task": task, "strategy": strategy}


STORE = pd.DataFrame([{"model": "m", "task": "boxes", "bytes": 123}])


def built(root, arms, runs=(), depths=()):
    return reuse_table(root, arms, list(runs), list(depths), STORE, STATISTICS)


def test_a_row_has_the_score_its_interval_and_the_difference_to_the_full_prefill(tmp_path):
    arms = [arm(tmp_path, "none"), arm(tmp_path, "blend", ratio=0.15)]
    table = built(tmp_path, arms).set_index("strategy")
    assert {*table.columns, "strategy"} == set(REUSE_COLUMNS)
    blend = table.loc["blend"]
    assert blend["score"] == 0.5
    assert blend["score_lo"] < 0.5 < blend["score_hi"]
    assert blend["score_delta"] == -0.25
    assert blend["score_delta_hi"] < 0
    assert (blend["ratio"], blend["check_layer"], blend["items"]) == (0.15, 1, 20)
    assert blend["computed_share"] == pytest.approx(60 / 400)
    assert blend["store_bytes"] == 123
    assert table.loc["none", "score_delta"] == 0


def test_a_failed_arm_is_a_row_without_numbers(tmp_path):
    arms = [arm(tmp_path, "none"), arm(tmp_path, "blend", scores=[], status="invalid")]
    row = built(tmp_path, arms).set_index("strategy").loc["blend"]
    assert row["status"] == "invalid"
    assert np.isnan(row["score"])


def test_a_task_borrows_times_of_one_with_prompts_of_its_length_only(tmp_path):
    arms = [arm(tmp_path, "none"), arm(tmp_path, "blend")]
    arms += [arm(tmp_path, "none", task="vt"), arm(tmp_path, "blend", task="vt")]
    near = built(tmp_path, arms, [timing(tmp_path, "blend", tokens=520)])
    blend = near[near["strategy"] == "blend"]
    assert blend["ttft_ratio"].tolist() == [0.5, 0.5]
    assert blend["timed_on"].tolist() == ["boxes", "boxes"]
    assert near.loc[near["strategy"] == "none", "ttft_ratio"].isna().all()
    far = built(tmp_path, arms, [timing(tmp_path, "blend", tokens=700)])
    assert far.loc[far["task"] == "vt", "ttft_ratio"].isna().all()


def test_a_deep_model_is_a_row_that_is_only_timed(tmp_path):
    row = {"strategy": "blend", "setting": "id", "ttft_ratio": 0.3, "status": "ok", "why": ""}
    write_parquet(tmp_path / "reuse_timing/deep/timing.parquet", pd.DataFrame([row]))
    table = built(tmp_path, [arm(tmp_path, "none")], depths=["deep"])
    deep = table[table["model"] == "deep"].iloc[0]
    assert (deep["task"], deep["ttft_ratio"], deep["drop"]) == ("timing only", 0.3, "none")


def test_the_store_counts_an_entry_once_and_says_what_sharing_saves(tmp_path):
    frames = {
        "a": [("k1", 10, 100, 3), ("k2", 20, 200, 1)],
        "b": [("k1", 10, 100, 1)],
    }
    files = []
    for name, rows in frames.items():
        files.append(tmp_path / f"{name}.parquet")
        columns = ["key", "tokens", "bytes", "references"]
        write_parquet(files[-1], pd.DataFrame(rows, columns=columns))
    table = store_table([("m", "a"), ("m", "b")], files).set_index("task")
    own = table.loc["a", ["entries", "tokens", "references", "shared", "bytes", "bytes_saved"]]
    assert own.tolist() == [2, 30, 4, 2, 300, 200]
    together = table.loc["all tasks"]
    assert (together["entries"], together["bytes"], together["references"]) == (2, 300, 5)
    assert together["bytes_saved"] == 300
    assert store_table([], []).empty


# The ledger.


def study(tmp_path):
    arms = [arm(tmp_path, name, ratio=None if name == "none" else 0.15) for name in SCORES]
    runs = [timing(tmp_path, "blend", ratio=0.4), timing(tmp_path, "random", ratio=0.8)]
    table = built(tmp_path, arms, runs)
    alias = table.assign(model="copy", alias_of="m", score=0.0)
    return Study(
        pd.DataFrame(),
        reuse=pd.concat([table, alias], ignore_index=True),
        answers=lambda path: answers(SCORES[path.split("/")[2]]),
        statistics=STATISTICS,
    )


def only(study, **test):
    (row,) = evidence(TypeAdapter(Test).validate_python(test), study)
    return row


def test_scores_are_compared_item_by_item_in_points(tmp_path):
    row = only(
        study(tmp_path), metric="score", arm={"strategy": "blend", "ratio": 0.15},
        reference={"strategy": "random"}, expect="higher",
    )  # fmt: skip
    assert row["estimate"] == pytest.approx(25)
    assert row["margin"] == 3.0
    assert row["model"] == "m"  # an alias is no evidence of its own
    assert row["text"] == "boxes"
    assert row["arm"] == "blend/id-blend"
    assert row["why"].endswith("20 items")


def test_a_deep_model_has_times_and_no_answers(tmp_path):
    here = study(tmp_path)
    deep = here.reuse[here.reuse["strategy"] == "blend"].iloc[:1].assign(
        model="deep", task="timing only", items=0, ttft_ratio=0.3, ttft_ratio_lo=0.29,
        ttft_ratio_hi=0.31,
    )  # fmt: skip
    here = Study(**vars(here) | {"reuse": pd.concat([here.reuse, deep], ignore_index=True)})
    assert set(here.arms("reuse")["strategy"]) == {"blend", "random"}  # none was not timed
    assert set(here.arms("answers")["model"]) == {"m", "copy"}
    assert "deep" in set(here.arms("reuse")["model"])
    arm = {"strategy": "blend", "model": "deep"}
    assert only(here, metric="ttft", arm=arm, reference=None, expect="lower")["estimate"] < -65
    score = only(here, metric="score", arm=arm, reference={"strategy": "none"}, expect="lower")
    assert score["verdict"] == "not tested here"


def test_the_time_to_first_token_is_held_against_the_full_prefill_or_another_arm(tmp_path):
    here = study(tmp_path)
    alone = only(here, metric="ttft", arm={"strategy": "blend"}, reference=None, expect="lower")
    assert alone["reference"] == "full prefill"
    assert alone["estimate"] == pytest.approx(-60)
    assert (alone["verdict"], alone["machine"], alone["margin"]) == ("reproduced", "here", 5.0)
    beside = only(
        here, metric="ttft", arm={"strategy": "blend"}, reference={"strategy": "random"},
        expect="lower",
    )  # fmt: skip
    assert beside["estimate"] == pytest.approx(-50)


def test_a_reference_without_a_ratio_is_found_when_it_says_so(tmp_path):
    row = only(
        study(tmp_path), metric="score", arm={"strategy": "blend", "ratio": 0.15},
        reference={"strategy": "none", "ratio": None}, expect="not_lower",
    )  # fmt: skip
    assert row["estimate"] == pytest.approx(-25)
    assert row["verdict"] == "contradicted"
