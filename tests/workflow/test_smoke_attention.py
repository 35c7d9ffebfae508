"""The attention part of the smoke study: its table, and what an edit makes due."""

from __future__ import annotations

import pandas as pd
import pytest
from tests.workflow.test_smoke import edited

pytestmark = pytest.mark.xdist_group("smoke")


def test_every_backend_has_its_rows(finished):
    table = pd.read_csv(finished.folder / "results/tables/attention.csv")
    key = ["backend", "length", "dtype", "measure"]
    assert not table.duplicated(key).any()
    assert list(table.columns[:9]) == [*key, "value", "lo", "hi", "unit", "status"]
    assert set(table["status"]) <= {"ok", "unavailable"}
    assert table.loc[table["status"] == "unavailable", "why"].notna().all()
    own = table[(table["backend"] == "reference") & (table["dtype"] == "float32")]
    assert (own["status"] == "ok").all()
    assert set(own["measure"]) >= {"forward_ms", "backward_ratio", "mask_cache_ratio",
                                   "mask_hit_rate", "gradient_error", "finite_x10000"}  # fmt: skip
    errors = table[table["measure"].isin(["forward_error", "gradient_error"])]
    errors = errors[(errors["dtype"] == "float32") & (errors["status"] == "ok")]
    assert (errors["value"] < 1e-5).all()


def test_its_claims_have_verdicts(finished):
    claims = pd.read_csv(finished.folder / "results/tables/claims.csv").set_index("id")
    assert claims.loc["stable-softmax", "verdict"] == "reproduced"
    for name in ("mask-cache", "backward-ratio"):
        assert claims.loc[name, "verdict"] != "not tested here"
        assert claims.loc[name, "machine"]


def test_editing_the_softmax_runs_the_attention_jobs_only(finished):
    with edited(finished, "src/kvpareto/attention/softmax.py", "import torch",
                "import torch  # an edit"):  # fmt: skip
        due = {rule for rule, _ in finished.due()}
    assert {"attention_quality", "attention_time", "attention_table"} <= due
    # Tables that look for jobs beside timing jobs read where every result is from.
    measuring = ("evict_", "reuse_quality", "reuse_time", "merge_quality", "precompute")
    assert not any(rule.startswith(measuring) for rule in due)


def test_a_study_without_the_part_asks_for_none_of_it(finished, tmp_path):
    without = tmp_path / "without.yaml"
    without.write_text("attention: null\n")
    output = finished.run("--dry-run", "--forceall", overlays=(str(without),)).stdout
    assert "rule claims_table" in output
    assert "attention" not in output
