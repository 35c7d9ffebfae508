"""What a decode step costs, engines that take turns, age and drift."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tests.tiny import random_ids, tiny_model

from kvpareto.attention.rope import Rotary
from kvpareto.decode_settings import DecodeAgeSettings, DecodeTimingSettings
from kvpareto.engine.age import age_errors, age_times, by_age, slopes
from kvpareto.engine.arms import age_arms, decode_runs
from kvpareto.engine.cost import read_bandwidth
from kvpareto.engine.drift import rotation_drift
from kvpareto.engine.engine import FULL, Bench, engine_of
from kvpareto.engine.shapes import bench_of
from kvpareto.engine.timing import time_engines
from kvpareto.settings import SettingsError, parse_settings

CAP, SINKS = 24, 4
TIMING = DecodeTimingSettings(blocks=6, tokens_per_block=4, warm_up_tokens=1)


def bench(family: str = "llama", tokens: int = 120) -> Bench:
    return bench_of(
        tiny_model(family),
        random_ids(1, tokens),
        cap=CAP,
        sinks=SINKS,
        threads=1,
        block_tokens=TIMING.tokens_per_block,
        gguf={},
    )


def test_engines_take_turns_and_what_fails_is_a_row():
    arms = [("prune", {}), ("prune", {"period": 8}), ("recompute", {}), ("ring", {}),
            ("ring", {"run": "graph"})]  # fmt: skip
    rows, tokens = time_engines(arms, bench(), TIMING, 0.95)
    rows = rows.set_index("engine")
    assert rows.loc["ring-graph", "status"] == "unavailable"
    assert np.isnan(rows.loc["ring-graph", "tpot_ms_p50"])
    ran = rows.drop(index="ring-graph")
    assert (ran["status"] == "ok").all()
    assert (ran.loc["prune", ["tpot_ratio", "tpot_ratio_lo", "tpot_ratio_hi"]] == 1).all()
    assert (ran.loc["recompute", ["recompute_ratio", "recompute_ratio_hi"]] == 1).all()
    assert (ran["tpot_ms_p50"] <= ran["tpot_ms_p99"]).all()
    assert (ran["tpot_ms_p99"] <= ran["tpot_ms_max"]).all()
    assert (ran[["read_bytes", "peak_bytes", "launches", "bandwidth_share"]] > 0).all().all()
    counts = tokens.groupby("engine").size()
    assert counts["ring"] == 6 * 4
    assert counts["prune-R8"] == 6 * 8  # whole periods
    assert set(tokens.groupby("engine")["block"].nunique()) == {6}


def test_what_a_step_reads_is_counted_once():
    own = bench("gpt_neox")
    model = own.model("float32")
    engine = engine_of("ring", {})
    decoder = engine.decoder(own)
    decoder.start()
    found = engine.cost(decoder, own)
    weights = sum(part.numel() for part in model.parameters())
    table = model.get_input_embeddings().weight.numel()
    entries = 2 * CAP * model.config.num_hidden_layers * model.config.hidden_size
    assert found.read_bytes == 4 * (weights - table + entries)
    assert found.peak_bytes > 4 * weights


def test_fused_weights_launch_less_and_a_ring_less_than_a_prune():
    own, launches = bench("gpt_neox"), {}
    for name, parameters in (("prune", {}), ("ring", {}), ("ring", {"weights": "fused"})):
        engine = engine_of(name, parameters)
        decoder = engine.decoder(own)
        decoder.start()
        launches[name, parameters.get("weights")] = engine.cost(decoder, own).launches
    assert launches["ring", "fused"] < launches["ring", None]
    assert launches["ring", None] < launches["prune", None]


def test_the_bandwidth_is_one_of_a_memory():
    assert 1e9 < read_bandwidth(torch.device("cpu")) < 1e12


AGE = DecodeAgeSettings(cap=CAP, tokens=96, full_tokens=48, bins=8, skipped=12)
ARMS = [("ring", {}), FULL]


def test_age_is_measured_bin_by_bin_and_the_full_cache_grows():
    own = bench()
    rows = by_age(age_times(ARMS, own, AGE), age_errors(ARMS, own, AGE))
    assert rows.groupby("engine").size().to_dict() == {"full": 4, "ring": 8}
    ring, full = (rows[rows["engine"] == name] for name in ("ring", "full"))
    assert ring["age"].tolist() == [6 + 12 * index for index in range(8)]
    assert (ring["kl_to_oracle"] < 1e-6).all()
    assert (ring["top1_agreement"] == 1).all()
    assert ring["cache_bytes"].nunique() == 1
    assert full["cache_bytes"].is_monotonic_increasing
    assert full["cache_bytes"].nunique() == 4
    assert full["kl_to_oracle"].isna().all()
    assert (rows["tpot_ms_lo"] <= rows["tpot_ms"]).all()
    found = slopes(rows, AGE.skipped, 0.95).set_index(["engine", "measure"])
    assert found.loc[("ring", "cache_bytes"), ["value", "lo", "hi"]].tolist() == [0, 0, 0]
    assert found.loc[("full", "cache_bytes"), "lo"] > 0


def test_a_slope_is_per_hundred_thousand_tokens_and_outlives_a_disturbance():
    age = np.arange(5_000, 200_000, 5_000)
    tpot = 2 + 1e-6 * age
    tpot[7] = 40.0
    rows = pd.DataFrame({"engine": "ring", "age": age, "tpot_ms": tpot, "status": "ok", "why": ""})
    rows["cache_bytes"], rows["kl_to_oracle"] = 100, 1e-9
    found = slopes(rows, 0, 0.95).set_index("measure")
    assert found.loc["tpot_ms", "value"] == pytest.approx(100 * 0.1 / np.median(tpot), rel=1e-3)
    assert found.loc["kl_to_oracle", "value"] == 0


def test_a_failure_of_age_is_a_row():
    own, arms = bench(), [("ring", {"run": "graph"})]
    rows = by_age(age_times(arms, own, AGE), age_errors(arms, own, AGE))
    assert rows["status"].tolist() == ["unavailable"]
    assert slopes(rows, 0, 0.95)["status"].unique().tolist() == ["unavailable"]


def test_only_repeated_rotation_and_rounded_angles_drift():
    rotary = Rotary(10_000.0 ** (-torch.arange(0, 64, 2) / 64))
    rows = rotation_drift(rotary, [1, 100, 10_000], ["float32", "bfloat16"])
    error = rows.set_index(["dtype", "way", "age"])["error"].sort_index()
    assert error["float32", "pristine"].max() < 1e-6
    assert error["bfloat16", "pristine"].max() < 3e-3
    assert error["float32", "float32 angle", 10_000] > 1e-5
    assert error["bfloat16", "cumulative", 100] > 0.02
    assert error["float32", "cumulative", 10_000] > 10 * error["float32", "cumulative", 1]


def settings(**decode):
    return {
        "study": "test",
        "models": {"m": {"path": "resources/models/ref-neox"}},
        "texts": {"t": {"source": "stdlib", "part": "code", "documents": ["argparse"],
                        "tokens": 64}},
        "decode": {"shapes": {"s": {"model": "m", "text": "t"}}, **decode},
    }  # fmt: skip


def group(*arms):
    return {"g": {"shapes": ["s"], "caps": [32, 64], "threads": [1, 2], "arms": list(arms)}}


def test_a_group_is_crossed_and_holds_the_yardstick():
    parsed = parse_settings(
        settings(groups=group({"engine": "ring", "weights": ["stock", "fused"]}))
    )
    runs = decode_runs(parsed)
    assert [(run.cap, run.threads) for run in runs] == [(32, 1), (32, 2), (64, 1), (64, 2)]
    assert [name for name, _ in runs[0].arms] == ["prune", "ring", "ring"]
    assert runs[0].engines == ["prune", "ring"]
    assert age_arms(parsed)[-1] == FULL


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"engine": "rnig"}, "decode.groups.g.arms.0: no engine 'rnig'"),
        ({"engine": "ring", "runs": ["eager"]}, "ring has no parameter 'runs'"),
        ({"engine": "prune", "period": [0]}, "period 0"),
    ],
    ids=str,
)
def test_impossible_engines_are_told_with_their_place(arm, message):
    with pytest.raises(SettingsError, match=message):
        decode_runs(parse_settings(settings(groups=group(arm))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": {"g": {"shapes": ["x"], "caps": [32], "arms": [{"engine": "ring"}]}}},
         "'x' is not defined under decode.shapes"),
        ({"groups": group({"engine": "ring"}), "shapes": {"s": {"model": "x", "text": "t"}}},
         "decode.shapes.s.model: 'x' is not defined under models"),
        ({"groups": group({"engine": "ring"}), "shapes": {"s": {"model": "m"}}},
         "a model needs a text"),
        ({"groups": group({"engine": "ring"}), "shapes": {"s": {"config": {"hidden_size": 8}}}},
         "model_type is missing"),
    ],
    ids=str,
)  # fmt: skip
def test_shapes_name_what_exists(change, message):
    with pytest.raises(SettingsError, match=message):
        parse_settings(settings(**change))
