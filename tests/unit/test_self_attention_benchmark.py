"""The five benchmarks that the attention changelog names: that they measure, not how fast it is."""

from functools import cache

import pandas as pd
import pytest

from kvpareto.attention_settings import AttentionSettings
from kvpareto.measure.attention_bench import ATTENTION_COLUMNS
from kvpareto.measure.attention_quality import attention_quality
from kvpareto.measure.attention_time import attention_time, growth

SETTINGS = AttentionSettings(
    embedding=64, lengths=[8, 16, 32], backward_lengths=[8, 32], mask_lengths=[8, 32],
    backends={"float32": ["reference", "sdpa"]}, rounds=6, seconds=0.02, mask_bytes=16 * 16 * 4,
)  # fmt: skip


@cache
def times() -> pd.DataFrame:
    return attention_time(SETTINGS, confidence=0.95)


@cache
def quality() -> pd.DataFrame:
    return attention_quality(SETTINGS)


def of(frame: pd.DataFrame, measure: str) -> pd.DataFrame:
    rows = frame[frame["measure"] == measure]
    assert (rows["status"] == "ok").all()
    assert (rows["lo"].isna() | (rows["lo"] <= rows["value"])).all()
    assert (rows["hi"].isna() | (rows["value"] <= rows["hi"])).all()
    return rows


def test_benchmark_mask_caching():
    for measure in ("mask_cache_ratio", "mask_addition_ratio"):
        rows = of(times(), measure)
        assert rows["length"].tolist() == [8, 32]
        assert (rows["value"] > 0).all()


def test_benchmark_different_sequence_lengths():
    rows = of(times(), "forward_ms")
    assert list(zip(rows["backend"], rows["length"], strict=True)) == [
        (backend, length) for length in (8, 16, 32) for backend in ("reference", "sdpa")
    ]
    assert (rows["value"] > 0).all()
    assert set(of(times(), "forward_ratio")["backend"]) == {"sdpa"}
    assert set(of(times(), "growth_exponent")["backend"]) == {"reference", "sdpa"}
    assert times()["machine"].str.len().min() > 0


def test_benchmark_numerical_stability():
    for scale in ("0.001", "1", "100", "1000", "10000"):
        rows = of(quality(), f"finite_x{scale}").set_index("backend")["value"]
        assert (rows[["reference", "sdpa"]] == 1).all()
        assert (of(times(), f"forward_ms_x{scale}")["value"] > 0).all()
    assert of(quality(), "finite_x10000").set_index("backend").loc["plain", "value"] < 1


def test_benchmark_gradient_computation():
    ahead, back, ratio = (
        of(times(), measure).set_index(["backend", "length"])["value"]
        for measure in ("training_forward_ms", "backward_ms", "backward_ratio")
    )
    assert len(ratio) == 4
    assert ratio.to_numpy() == pytest.approx((back / ahead).to_numpy(), rel=0.5)
    for measure in ("forward_error", "gradient_error"):
        rows = of(quality(), measure)
        assert len(rows) == 4
        assert (rows["value"] < 1e-5).all()


def test_benchmark_cache_hit_rate():
    """There is room for 16 tokens: requests for 32 miss, as does the first for 8 and for 16."""
    row = of(quality(), "mask_hit_rate").iloc[0]
    assert 0.6 < row["value"] < 0.7
    assert of(quality(), "mask_bytes").iloc[0]["value"] == 16 * 16 * 4
    assert of(quality(), "mask_bytes_by_length").iloc[0]["value"] == 4 * (8**2 + 16**2 + 32**2)


# What the benchmarks have in common.


def test_quality_is_the_same_twice():
    pd.testing.assert_frame_equal(quality(), attention_quality(SETTINGS))
    assert list(quality().columns) == ATTENTION_COLUMNS


def test_what_cannot_run_is_a_row_that_says_why(monkeypatch):
    def nowhere(settings, dtype, backward):
        return dict.fromkeys(settings.backends[dtype], "no such unit")

    for module in ("attention_quality", "attention_time"):
        monkeypatch.setattr(f"kvpareto.measure.{module}.refusals", nowhere)
    frames = (attention_quality(SETTINGS), attention_time(SETTINGS, 0.95))
    for frame, measures in zip(
        frames,
        ({"forward_error", "gradient_error", "finite_x1"}, {"forward_ms", "backward_ms"}),
        strict=True,
    ):
        rows = frame[frame["measure"].isin(measures) & (frame["backend"] != "plain")]
        assert set(rows["measure"]) == measures
        assert (rows["status"] == "unavailable").all()
        assert (rows["why"] == "no such unit").all()
        assert rows["value"].isna().all()


def test_growth_is_the_exponent_of_the_longer_half_of_the_lengths():
    lengths = [8, 16, 32, 64, 128, 256]
    times = [length**2 / 1e3 if length >= 64 else 7.0 for length in lengths]
    rows = pd.DataFrame({"length": lengths, "value": times}).assign(
        backend="sdpa", dtype="float32", measure="forward_ms", status="ok"
    )
    (row,) = growth(rows, 0.95)
    assert row["value"] == pytest.approx(2)
    assert row["lo"] == pytest.approx(2, abs=1e-6)
    assert (row["length"], row["why"]) == (256, "from 64 tokens on")
    assert growth(rows[:2], 0.95) == []


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="embedding 64 must be a multiple of heads 5"):
        AttentionSettings(embedding=64, heads=5, lengths=[8])
