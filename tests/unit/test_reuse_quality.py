"""Quality of reuse, its gate, its count of operations, its times: on tiny models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.tiny import tiny_bench, tiny_item, tiny_source, tiny_variant

from kvpareto.measure.fidelity import greedy_match, kl_nats, kv_error
from kvpareto.records import read_json, read_parquet
from kvpareto.reuse.arms import setting_id
from kvpareto.reuse.cost import Shape, full_prefill, fused_prefill, shape_of
from kvpareto.reuse.depth import deep_bench
from kvpareto.reuse.gate import parity_gate
from kvpareto.reuse.quality import ITEM_COLUMNS, run_reuse
from kvpareto.reuse.timing import PARTS, time_arms
from kvpareto.reuse_settings import DepthSettings, GateSettings, ReuseTimingSettings
from kvpareto.text.tasks.item import TaskItems

OPEN = {"passed": True, "why": ""}
DROP = {"name": "small", "method": "streaming", "budget": 12}


def task(items=3, **more):
    made = tuple(
        replace(tiny_item(seed=seed), id=f"i{seed}", answers=("5",), support=((6, 9),),
                traits={"depth": 0.5, "length": 38})
        for seed in range(items)
    )  # fmt: skip
    return TaskItems(
        **{"score": "string_match_all", "max_new_tokens": 3, "stop": (), "items": made} | more
    )


def arm(strategy, drop="none", **parameters):
    setting = {"check_layer": 0, **parameters, "drop": drop}
    return {"model": "tiny", "task": "t", "strategy": strategy, "setting": setting}


def run(tmp_path, *arms, gate=OPEN, the_task=None, family="llama"):
    folders = [tmp_path / str(i) for i in range(len(arms))]
    run_reuse(
        tiny_bench(tmp_path / "store", family), {"t": the_task or task()}, list(arms), gate, folders
    )
    return [
        (read_parquet(folder / "items.parquet"), read_json(folder / "summary.json"))
        for folder in folders
    ]


def test_a_full_prefill_agrees_with_itself(tmp_path):
    ((frame, summary),) = run(tmp_path, arm("none"))
    assert list(frame.columns) == list(ITEM_COLUMNS)
    assert summary["status"] == "ok"
    assert summary["items"] == len(frame) == 3
    assert frame["kl_first_token"].max() < 1e-9
    assert frame["top1_agreement"].all()
    assert (frame["greedy_match"] == 1).all()
    assert frame["kv_error"].max() < 1e-5
    assert (frame["support_coverage"] == 1).all()


def test_the_more_is_computed_the_smaller_the_error_of_the_cache_under_an_oracle(tmp_path):
    results = run(tmp_path, *(arm("oracle", check_layer=1, ratio=r) for r in (0.0, 0.5, 1.0)))
    errors = [frame["kv_error"].mean() for frame, _ in results]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5
    computed = [frame["computed"].str.len().tolist() for frame, _ in results]
    assert computed == [[0, 0, 0], [14, 14, 14], [28, 28, 28]]
    for frame, _ in results:
        assert [sum(row) for row in frame["computed_per_chunk"]] == frame[
            "computed"
        ].str.len().tolist()
    assert results[2][0]["computed_per_chunk"].iloc[0].tolist() == [9, 12, 7]


def test_an_answer_ends_at_a_stop_text_which_is_cut_off(tmp_path):
    ((long, _),) = run(tmp_path, arm("none"))
    ((short, _),) = run(tmp_path / "again", arm("none"), the_task=task(stop=(".",)))
    assert (long["prediction"].str.count(r"\.") == 3).all()
    assert not short["prediction"].str.contains(r"\.").any()
    assert (short["prediction"] == long["prediction"].str.partition(".")[0]).all()


def test_a_drop_comes_after_the_first_token(tmp_path):
    (whole, _), (dropped, _) = run(tmp_path, arm("full"), arm("full", drop=DROP))
    same = ["kl_first_token", "kv_error", "top1_agreement"]
    assert whole[same].equals(dropped[same])
    first = [frame["prediction"].str.split(".").str[0].tolist() for frame in (whole, dropped)]
    assert first[0] == first[1]
    assert whole["prediction"].tolist() != dropped["prediction"].tolist()


def test_a_drop_is_refused_where_a_window_counts_entries(tmp_path):
    ((frame, summary),) = run(tmp_path, arm("full", drop=DROP), family="mistral-window")
    assert summary["status"] == "refused"
    assert "sliding window" in summary["why"]
    assert frame.empty


def test_a_shut_gate_refuses_every_arm_and_measures_nothing(tmp_path):
    shut = {"passed": False, "why": "task t, check layer 1: logit error 0.3"}
    for frame, summary in run(tmp_path, arm("none"), arm("full"), gate=shut):
        assert frame.empty
        assert summary["status"] == "refused"
        assert summary["why"] == "parity gate: task t, check layer 1: logit error 0.3"


def test_one_arm_that_raises_stops_no_other(tmp_path):
    without_losses = tiny_bench(tmp_path / "store")
    source = without_losses.source
    source.identity = replace(source.identity, surprisal=False)
    folders = [tmp_path / "a", tmp_path / "b"]
    arms = [arm("surprisal_chunk", ratio=0.5), arm("full")]
    run_reuse(without_losses, {"t": task()}, arms, OPEN, folders)
    bad, good = (read_json(folder / "summary.json") for folder in folders)
    assert bad["status"] == "invalid"
    assert "store.surprisal" in bad["why"]
    assert good["status"] == "ok"
    assert read_parquet(folders[0] / "items.parquet").empty


def test_the_gate_opens_for_a_sound_model_and_says_what_it_checked(tmp_path):
    result = parity_gate(tiny_bench(tmp_path), {"t": task()}, GateSettings(items=2))
    assert result["passed"]
    assert result["why"] == ""
    assert [(one["check_layer"], one["items"]) for one in result["checks"]] == [(0, 2), (1, 2)]
    assert all(one["logit_error"] < 1e-4 for one in result["checks"])


def test_the_gate_shuts_when_the_forward_passes_differ(tmp_path, monkeypatch):
    broken = tiny_bench(tmp_path)
    monkeypatch.setattr(broken.source.blocks, "rotary_scale", 1.1)
    result = parity_gate(broken, {"t": task()}, GateSettings(items=1))
    assert not result["passed"]
    assert "task t, check layer 0: logit error" in result["why"]


@pytest.mark.parametrize("same_answer", [True, False])
def test_another_answer_within_the_tolerance_shuts_the_gate_unless_it_may(
    tmp_path, monkeypatch, same_answer
):
    broken = tiny_bench(tmp_path)
    monkeypatch.setattr(broken.source.blocks, "rotary_scale", 3.0)
    settings = GateSettings(items=1, tolerance=1e9, same_answer=same_answer)
    result = parity_gate(broken, {"t": task()}, settings)
    assert not all(one["answers_equal"] for one in result["checks"])
    assert result["passed"] == (not same_answer)
    assert ("another answer" in result["why"]) == same_answer


# Fidelity.


def test_kl_is_zero_for_equal_and_known_for_two_outcomes():
    true, guess = torch.tensor([0.25, 0.75]).log(), torch.tensor([0.5, 0.5]).log()
    assert kl_nats(true, true) == 0
    expected = 0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log()
    assert kl_nats(true, guess) == pytest.approx(float(expected), abs=1e-6)


def test_the_error_of_a_cache_is_relative_and_of_the_span_only():
    true = (torch.ones(2, 6, 4), torch.ones(2, 6, 4))
    guess = (true[0].clone(), true[1].clone())
    guess[0][:, 0] = 100.0  # outside of the span
    guess[0][:, 2] = 2.0
    assert kv_error([true], [guess], (1, 5)) == [pytest.approx((8 / 64) ** 0.5)]


@pytest.mark.parametrize(
    ("answer", "share"), [([1, 2, 3, 4], 1.0), ([1, 2, 9, 4], 0.5), ([9], 0.0), ([1, 2], 0.5)]
)
def test_greedy_match_is_the_share_before_the_first_difference(answer, share):
    assert greedy_match([1, 2, 3, 4], answer) == share


# Operations and time.


def test_operations_are_counted_as_executed():
    shape = Shape(layers=3, projection=10, rest=20, width=4, output=7)
    assert full_prefill(shape, 100) == 2 * (3 * 30 * 100 + 3 * 100 * 100 * 4 + 7)
    # c = 1, 20 rows: one full layer, one with all projected, one of rows; masks skip nothing.
    below = 2 * (30 * 100 + 100 * 100 * 4)
    above = 2 * (10 * (100 + 20) + 2 * 20 * 20 + 2 * 2 * 20 * 100 * 4 + 7)
    assert fused_prefill(shape, 100, 20, 1) == below + above


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
def test_the_shape_counts_every_matrix_of_a_layer(family, tmp_path):
    model = tiny_variant(family)
    shape = shape_of(tiny_source(model, tmp_path).blocks)
    layer = model.base_model.layers[0]
    matrices = sum(one.numel() for one in layer.parameters() if one.ndim == 2)
    assert shape.projection + shape.rest == matrices
    assert 0 < shape.projection < shape.rest
    assert shape.layers == model.config.num_hidden_layers


TIMING = ReuseTimingSettings(pairs=6, warm_up=1, decoded_tokens=2)


def test_times_add_up_and_every_part_is_measured(tmp_path):
    arms = [arm("blend", check_layer=1, ratio=0.5), arm("none"), arm("blend", ratio=7.0)]
    table = time_arms(tiny_bench(tmp_path), task().items, arms, TIMING, 0.95).set_index("strategy")
    table["status"] = table["status"].astype(str)
    assert table["status"].tolist() == ["ok", "ok", "invalid"]
    assert "ratio 7.0 is not between 0 and 1" in table["why"].iloc[2]
    blend = table.iloc[0]
    parts = [blend[f"{part}_ms"] for part in PARTS]
    assert min(parts) > 0
    assert sum(parts) == pytest.approx(blend["ttft_ms"], rel=0.5)
    assert blend["ttft_ratio_lo"] <= blend["ttft_ratio"] <= blend["ttft_ratio_hi"]
    assert blend["ttft_cold_ms"] > 0
    assert blend["tpot_ms"] > 0
    assert table.iloc[1]["operations_ratio"] == 1


def test_a_deep_model_is_random_and_the_same_every_time(tmp_path):
    shape = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
             "num_attention_heads": 2}  # fmt: skip
    settings = DepthSettings(
        shape=shape, tokens=80, chunk_tokens=30, question_tokens=9, arms=[{"strategy": "full"}]
    )
    (first, items), (second, again) = (deep_bench(settings, tmp_path) for _ in range(2))
    assert items == again
    assert items[0] != items[1]
    assert [len(chunk) for chunk in items[0].chunks] == [30, 30, 10]
    assert len(items[0].ids) == 80
    segment = first.source.segments(items[0])[1]
    assert torch.equal(segment.keys, second.source.segments(again[0])[1].keys)
    assert second.source.hits == 4


def test_setting_ids_name_ratio_check_layer_and_drop():
    blend = arm("blend", check_layer=1, ratio=0.15)["setting"]
    assert setting_id("blend", blend).startswith("c1-r0.15-")
    dropped = setting_id("blend", blend | {"drop": DROP})
    assert dropped.startswith("small-c1-r0.15-")
    assert setting_id("blend", blend | {"drop": DROP | {"budget": 13}}) != dropped
