"""The ledger on decode engines: paired times and tails, columns, slopes, what entries say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from tests.decode_frames import ENGINES, NO_GPU, decode_rows, slope_rows, token_rows

from kvpareto.claim_settings import Claim, Test
from kvpareto.claims.evidence import evidence
from kvpareto.claims.judged import NOT_TESTED
from kvpareto.claims.ledger import ledger
from kvpareto.claims.negative import negative_results
from kvpareto.claims.study import Study

CONFIG = Path(__file__).parents[2] / "config" / "claims.yaml"
CLAIMS = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["claims"]
SPEEDS = {name: ms for name, (ms, _, _) in ENGINES.items() if not np.isnan(ms)}
TAILS = {"prune-R64": 2.5, "llama_cpp-discard64": 2.5}


def study(rows=None, speeds=None, tails=None, noise=0.0, **more):
    """A study of one run, whose tokens are read by its place."""
    rows = decode_rows() if rows is None else rows
    tokens = token_rows(SPEEDS | (speeds or {}), TAILS if tails is None else tails)
    runs = {
        f"{row.group}/{row.shape}/cap{row.cap}/threads{row.threads}" for row in rows.itertuples()
    }
    return Study(
        pd.DataFrame(columns=["model", "text", "policy", "setting"]), decode=rows,
        decode_tokens=dict.fromkeys(runs, tokens).__getitem__, noise_floor_pct=noise, **more,
    )  # fmt: skip


def only(study, **test):
    (row,) = evidence(TypeAdapter(Test).validate_python(test), study)
    return row


def against(study, arm, reference, expect="lower", metric="decode_tpot", **more):
    return only(study, metric=metric, arm={"engine": arm}, reference={"engine": reference},
                expect=expect, **more)  # fmt: skip


def of_column(study, column, expect="equal", value=1, margin=0, **rows):
    return only(study, metric="decode", rows=rows, column=column, value=value, expect=expect,
                difference="absolute", margin=margin)  # fmt: skip


# Time per token


def test_times_are_paired_by_block_so_that_drift_cancels():
    row = against(study(), "ring", "prune")
    change = 100 * (SPEEDS["ring"] / SPEEDS["prune"] - 1)
    assert row["estimate"] == pytest.approx(change, abs=0.2)
    assert row["hi"] - row["lo"] < 1  # blocks themselves differ by half
    assert (row["verdict"], row["margin"], row["machine"]) == ("reproduced", 3.0, "a machine")
    assert (row["arm"], row["reference"], row["model"]) == ("ring", "prune", "ref-neox")
    assert row["text"] == "cap 512, threads 2, group engines"


def test_the_margin_of_time_is_never_below_the_noise_floor():
    assert against(study(noise=30.0), "ring", "prune")["margin"] == 30.0
    assert against(study(), "ring", "prune", margin=50.0)["verdict"] == "contradicted"


def test_a_reference_is_of_the_arms_own_run():
    rows = decode_rows(caps=(512, 2048), threads=(1, 2))
    here = study(rows)
    arm = {"engine": "ring"}
    test = {
        "metric": "decode_tpot",
        "arm": arm,
        "reference": {"engine": "prune"},
        "expect": "lower",
    }
    found = evidence(TypeAdapter(Test).validate_python(test), here)
    assert len(found) == 4
    assert len({row["text"] for row in found}) == 4
    test["arm"] = arm | {"cap": 2048, "threads": 1}
    (row,) = evidence(TypeAdapter(Test).validate_python(test), here)
    assert row["text"] == "cap 2048, threads 1, group engines"


def test_what_a_machine_cannot_run_is_not_tested_with_its_reason():
    for arm, reference in (("ring-graph", "ring"), ("ring", "ring-graph")):
        row = against(study(), arm, reference)
        assert row["verdict"] == NOT_TESTED
        assert row["why"] == f"ring-graph: unavailable, {NO_GPU}"
        assert (row["arm"], row["reference"]) == (arm, reference)


def test_an_engine_that_failed_decides_nothing():
    rows = decode_rows()
    rows.loc[rows["engine"] == "ring", ["status", "why"]] = ["invalid", "it broke"]
    row = against(study(rows), "ring", "prune")
    assert (row["verdict"], row["why"]) == ("undecided", "ring: invalid, it broke")


def test_engines_that_share_no_block_are_undecided():
    here = study()
    tokens = token_rows(SPEEDS)
    tokens = tokens[(tokens["engine"] == "ring") == (tokens["block"] < 6)]
    row = against(
        Study(here.eviction, decode=here.decode, decode_tokens=lambda run: tokens), "ring", "prune"
    )
    assert row["verdict"] == "undecided"
    assert row["why"] == "no block was timed of both engines"


# The tail


def test_a_tail_is_held_against_its_own_median():
    row = against(study(), "ring", "prune-R64", metric="decode_tail", margin=0)
    assert row["verdict"] == "reproduced"
    assert row["estimate"] < -20
    slower = study(speeds={"ring": 30.0})
    again = against(slower, "ring", "prune-R64", metric="decode_tail", margin=0)
    assert again["estimate"] == pytest.approx(row["estimate"], abs=1)


def test_equal_tails_are_not_told_apart():
    row = against(study(tails={}), "ring", "prune-R64", metric="decode_tail", margin=0)
    assert (row["verdict"], row["why"]) == ("undecided", "the interval spans the margin")


# Columns


def test_a_column_is_held_against_a_value_with_its_bounds():
    row = of_column(study(), "speedup_vs_strict", "higher", engine="ring-compiled")
    assert row["verdict"] == "reproduced"
    assert row["lo"] < row["estimate"] < row["hi"]
    assert (row["arm"], row["reference"]) == ("ring-compiled/speedup_vs_strict", "1")
    assert row["machine"] == "a machine"


def test_what_has_no_bounds_is_exact_and_of_no_machine():
    row = of_column(study(), "finite", engine="ring", weights="trained")
    assert (row["verdict"], row["estimate"], row["machine"]) == ("reproduced", 0.0, "")
    row = of_column(study(), "top1_agreement", engine="ring-bfloat16")
    assert row["verdict"] == "contradicted"


def test_what_was_not_compared_says_why():
    random = decode_rows(weights="random").assign(kl_to_oracle=np.nan)
    row = of_column(study(random), "kl_to_oracle", value=0, engine="ring")
    assert (row["verdict"], row["why"]) == (NOT_TESTED, "no kl_to_oracle with random weights")
    row = of_column(study(), "finite", engine="ring-graph")
    assert row["why"] == f"unavailable: {NO_GPU}"
    assert of_column(study(), "finite", engine="x")["why"] == "no row {engine: x}"


def test_a_column_that_no_claim_can_be_about_is_refused():
    with pytest.raises(ValidationError, match="column"):
        of_column(study(), "machine", engine="ring")


# Slopes


@pytest.mark.parametrize(
    ("engine", "measure", "expected"),
    [
        ("ring", "tpot_ms", "reproduced"),
        ("ring", "cache_bytes", "reproduced"),
        ("full", "tpot_ms", "contradicted"),
        ("full", "kl_to_oracle", NOT_TESTED),
        ("ring-graph", "tpot_ms", NOT_TESTED),
    ],
)
def test_a_slope_is_flat_if_its_interval_lies_inside_the_margin(engine, measure, expected):
    here = study(decode_age=slope_rows())
    row = only(here, metric="decode_age", rows={"engine": engine, "measure": measure}, value=0,
               difference="absolute", expect="equal", margin=3.0)  # fmt: skip
    assert row["verdict"] == expected
    assert row["arm"] == f"{engine}/{measure}"
    assert row["text"] == "cap 512, per 100,000 tokens"
    timed = measure == "tpot_ms" and expected != NOT_TESTED
    assert row["machine"] == ("a machine" if timed else "")


# Entries


def entry(name):
    return Claim.model_validate(CLAIMS[name])


def verdicts(study, *names):
    table, _ = ledger({name: entry(name) for name in names}, study)
    return dict(zip(table["id"], table["verdict"], strict=True)), table


def test_on_a_cpu_claims_on_graphs_are_not_tested_and_say_what_they_need():
    found, table = verdicts(study(), "compile-graphs", "int4", "fused-libs")
    assert set(found.values()) == {NOT_TESTED}
    assert NO_GPU in table.set_index("id")["why"]["compile-graphs"]
    assert "library of fused kernels" in table.set_index("id")["why"]["fused-libs"]


def test_on_a_gpu_a_graph_that_gives_the_oracles_tokens_contradicts_that_graphs_are_unstable():
    rows = decode_rows()
    graphs = rows["engine"].isin(["ring-graph", "ring-graph-fused"])
    rows.loc[graphs, "status"] = "ok"
    rows["finite"] = True
    rows.loc[graphs, "top1_agreement"] = 1.0
    speeds = {"ring-graph": 0.5, "ring-graph-fused": 0.4}
    found, _ = verdicts(study(rows, speeds), "compile-graphs", "graph-capture")
    assert found == {"compile-graphs": "contradicted", "graph-capture": "reproduced"}
    rows.loc[graphs, "top1_agreement"] = 0.2
    found, _ = verdicts(study(rows, speeds), "compile-graphs", "graph-capture")
    assert found == {"compile-graphs": "reproduced", "graph-capture": "contradicted"}


def test_weights_only_and_dynamic_int8_are_two_claims():
    rows = pd.concat(
        [decode_rows(), decode_rows().query("engine == 'ring'").assign(engine="ring-int8")]
    )
    slow = {"ring-int8": 9.0, "ring-compiled-int8": 3.0, "ring-compiled-int8_dynamic": 0.8}
    found, _ = verdicts(study(rows, slow), "int8", "int8-dynamic")
    assert found == {"int8": "reproduced", "int8-dynamic": "reproduced"}
    found, _ = verdicts(study(rows, slow | {"ring-compiled-int8": 1.0}), "int8", "int8-dynamic")
    assert found["int8"] == "contradicted"


def test_the_rings_claims_follow_from_the_tables():
    names = ("ring-speed", "ring-tail", "ring-agrees", "ring-flat", "fused-weights")
    found, _ = verdicts(study(decode_age=slope_rows()), *names)
    assert set(found.values()) == {"reproduced"}
    rows = decode_rows()
    rows.loc[rows["engine"] == "ring", "kl_to_oracle"] = 1e-4
    slow = {"ring-compiled-fused": 2.8}
    grown = slope_rows().assign(value=5.0, lo=4.0, hi=6.0)
    found, _ = verdicts(study(rows, slow, {}, decode_age=grown), *names)
    assert found.pop("ring-tail") == "undecided"
    assert set(found.values()) == {"contradicted"}


def test_peers_are_compared_in_the_run_that_the_claim_names():
    names = ("ring-vs-llamacpp", "int8-vs-llamacpp")
    assert set(verdicts(study(), *names)[0].values()) == {NOT_TESTED}
    rows = decode_rows((2048,), (1,), shape="llama-25m")
    speeds = {"ring-compiled-fused-int8_dynamic": 1.0}
    found, table = verdicts(study(rows, speeds), *names)
    assert found == dict.fromkeys(names, "reproduced")
    assert set(table["machine"]) == {"a machine"}


def test_tricks_that_do_not_pay_are_negative_results():
    names = ("attention-side", "int8-dynamic", "static-rolling", "fused-weights")
    speeds = {"prompt_lookup": 2.9, "sliding_window": 3.4}
    _, table = verdicts(study(speeds=speeds), *names)
    negative = negative_results(table, {name: entry(name) for name in names})
    assert set(negative["id"]) == {"attention-side", "int8-dynamic", "static-rolling"}
