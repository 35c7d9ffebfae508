"""The decode part of the smoke study: its tables, and what an edit makes due."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.workflow.test_smoke import edited

pytestmark = pytest.mark.xdist_group("smoke")


def test_every_engine_has_its_row_and_exact_ones_agree_with_the_oracle(finished):
    table = pd.read_csv(finished.folder / "results/tables/decode.csv")
    key = ["group", "shape", "cap", "threads", "engine"]
    assert not table.duplicated(key).any()
    rows = table.set_index("engine")
    assert set(rows.index) == {"prune", "prune-R8", "ring", "ring-fused", "ring-graph",
                               "ring-graph-fused", "llama_cpp"}  # fmt: skip
    graphs = rows.loc[["ring-graph", "ring-graph-fused"]]
    assert (graphs["status"] == "unavailable").all()
    assert graphs["why"].str.contains("CUDA").all()
    ran = rows.drop(index=graphs.index)
    assert (ran["status"] == "ok").all()
    assert (ran[["tpot_ms_p50", "bandwidth_share", "read_bytes", "peak_bytes"]] > 0).all().all()
    assert rows.loc["prune", "tpot_ratio"] == 1
    exact = ran[ran["exact"] & (ran.index != "llama_cpp")]
    assert set(exact.index) == {"prune", "ring", "ring-fused"}
    assert (exact["kl_to_oracle"] < 1e-6).all()
    assert (exact["top1_agreement"] == 1).all()
    assert (exact["compared_tokens"] == 40).all()
    # llama.cpp's GELU comes from a table in half precision.
    assert rows.loc["llama_cpp", "top1_agreement"] >= 0.97
    assert rows.loc["prune-R8", "kl_to_oracle"] > 1e-6


def test_age_and_drift_have_their_rows(finished):
    slopes = pd.read_csv(finished.folder / "results/tables/decode_age.csv")
    slopes = slopes.set_index(["engine", "measure"])
    assert (slopes["status"] == "ok").all()
    assert slopes.loc[("ring", "cache_bytes"), "value"] == 0
    assert slopes.loc[("full", "cache_bytes"), "lo"] > 0
    drift = pd.read_parquet(finished.folder / "results/decode/drift.parquet")
    assert set(drift["way"]) == {"cumulative", "pristine", "float32 angle"}


def test_its_claims_have_verdicts_and_reasons(finished):
    claims = pd.read_csv(finished.folder / "results/tables/claims.csv").set_index("id")
    assert claims.loc["ring-agrees", "verdict"] == "reproduced"
    assert claims.loc["compile-graphs", "verdict"] == "not tested here"
    assert "CUDA" in claims.loc["compile-graphs", "why"]
    assert claims.loc["ring-speed", "verdict"] != "reproduced"  # its compiled part did not run


def test_editing_one_engine_runs_the_comparisons_that_it_is_part_of(finished):
    with edited(finished, "src/kvpareto/engine/engines/llama_cpp.py",
                "_GENERATED = 500", "_GENERATED = 400"):  # fmt: skip
        due = {rule for rule, _ in finished.due()}
    jobs = {"decode_quality_core_ref_neox_32", "decode_time_core_ref_neox_32_2"}
    assert jobs | {"decode_table", "claims_table"} <= due
    # Tables of times read which jobs ran beside which, so they are due; what they show is not.
    measuring = ("evict_", "reuse_quality", "reuse_time", "reuse_depth", "merge_quality",
                 "precompute", "age_", "drift", "gguf")  # fmt: skip
    assert not any(rule.startswith(measuring) for rule in due)


def test_a_study_without_the_part_asks_for_none_of_it(finished, tmp_path):
    without = tmp_path / "without.yaml"
    without.write_text("decode: {groups: {core: null}, age: {shapes: []}}\n")
    output = finished.run("--dry-run", "--forceall", overlays=(str(without),)).stdout
    assert "rule claims_table" in output
    assert "rule decode" not in output
    assert "rule gguf" not in output
