"""The merge part of the smoke study: its table and probes, and what an edit makes due."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.workflow.test_smoke import edited

pytestmark = pytest.mark.xdist_group("smoke")

OFFSETS = "src/kvpareto/merge/offsets"


def measuring(due) -> set[str]:
    """Rules that measure something, of all parts."""
    named = {rule for rule, _ in due}
    prefixes = ("evict_", "reuse_quality", "reuse_time", "merge_quality", "attention_")
    probes = {"forgetting", "head_conflict", "single_chunk", "sink_collapse", "merge_memory"}
    return {rule for rule in named if rule.startswith(prefixes) or rule in probes}


def test_every_arm_has_a_row_for_each_number_of_chunks(finished):
    table = pd.read_csv(finished.folder / "results/tables/merge.csv")
    assert (table["status"] == "ok").all(), table[["arm", "status", "why"]]
    asked = table[table["task"].isin(["lone-needle", "many-keys"])]
    assert set(asked["arm"]) == {"zero", "concat", "full", "energy_deficit", "hard_drop"}
    assert set(asked["chunks"]) == {1, 3}
    exact = asked[asked["arm"].isin(["zero", "concat"])]
    assert (exact["kl_to_full"] < 1e-6).all()
    assert asked["score"].between(0, 1).all()
    text = table[table["task"] == "stdlib-code"]
    assert set(text["model"]) == {"ref-neox"}
    assert set(text["positions"]) == {"sequential"}
    assert (text["score"] > 1).all()


def test_chunk_by_chunk_takes_no_memory_that_grows(finished):
    table = pd.read_csv(finished.folder / "results/tables/merge.csv")
    rows = table[table["task"] == "memory and time"].set_index(["run", "chunks"])
    peak = rows["peak_extra_bytes"]
    assert peak["chunk by chunk", 8] < 1.05 * peak["chunk by chunk", 2]
    assert peak["concatenated", 8] > 3 * peak["concatenated", 2]
    assert (rows[["pass_ms", "step_ms"]] > 0).all(axis=None)


def test_the_probes_of_deletion_are_in_the_table_and_their_claims_have_verdicts(finished):
    probes = pd.read_csv(finished.folder / "results/tables/probes.csv")
    own = probes[probes["text"] == "lone-needle"]
    assert set(own["probe"]) == {"forgetting", "head_conflict", "single_chunk", "sink_collapse"}
    claims = pd.read_csv(finished.folder / "results/tables/claims.csv").set_index("id")
    for name in ("deletion-flaws", "lossless"):
        assert claims.loc[name, "verdict"] != "not tested here"
    assert claims.loc["single-chunk-ln2", "verdict"] in ("reproduced", "undecided")


def test_editing_one_offset_runs_its_arms_only(finished):
    with edited(finished, f"{OFFSETS}/hard_drop.py", "@dataclass(frozen=True)",
                "# an edit\n@dataclass(frozen=True)"):  # fmt: skip
        due = finished.due()
    # The two probes are of deletion, and load this method.
    assert measuring(due) == {"merge_quality_hard_drop", "forgetting", "head_conflict"}


def test_a_study_without_the_part_asks_for_none_of_it(finished, tmp_path):
    without = tmp_path / "without.yaml"
    without.write_text(
        "merge: {noise: null, in_order: null, long_text: null}\n"
        "merge_memory: {models: []}\nmerge_probes: {models: []}\n"
    )
    output = finished.run("--dry-run", "--forceall", overlays=(str(without),)).stdout
    assert "rule claims_table" in output
    assert "merge" not in output
