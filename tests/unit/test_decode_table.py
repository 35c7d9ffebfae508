"""The table `decode`: its rows from times and comparisons, its columns explained."""

import numpy as np
import pandas as pd
import pytest
from tests.decode_frames import slope_rows

from kvpareto.records import write_parquet
from kvpareto.report.columns import COLUMNS
from kvpareto.report.decode_tables import DECODE_COLUMNS, decode_table
from kvpareto.report.tables import html_table

ENDS = ("", "_lo", "_hi")


def times(with_recompute: bool = True) -> pd.DataFrame:
    """What one run gives: the yardstick, a ring twice as fast, and one that cannot run."""
    ring = {"tpot_ratio": 0.5, "tpot_ratio_lo": 0.4, "tpot_ratio_hi": 0.8}
    if with_recompute:
        ring |= {"recompute_ratio": 0.1, "recompute_ratio_lo": 0.05, "recompute_ratio_hi": 0.2}
    common = {"status": "ok", "why": "", "machine": "a machine", "bandwidth_gb_s": 20.0}
    rows = [
        common | ring | {"engine": "ring", "exact": True, "launches": 60.0, "tpot_ms_p50": 1.5},
        common | {"engine": "prune", "exact": True, "tpot_ratio": 1.0, "tpot_ms_p50": 3.0},
        common | {"engine": "ring-graph", "exact": True, "status": "unavailable", "why": "no GPU"},
    ]
    return pd.DataFrame(rows)


def comparison() -> pd.DataFrame:
    rows = [
        {"engine": "ring", "kl_to_oracle": 1e-10, "finite": True, "status": "ok", "why": ""},
        {"engine": "ring-graph", "kl_to_oracle": np.nan, "finite": None, "status": "unavailable",
         "why": "said elsewhere"},
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def table(tmp_path):
    """A run of trained weights, and one of random weights without recompute."""
    write_parquet(tmp_path / "time.parquet", times())
    write_parquet(tmp_path / "random.parquet", times(with_recompute=False))
    write_parquet(tmp_path / "quality.parquet", comparison())
    about = {"group": "core", "shape": "ref-neox", "cap": 512, "threads": 2}
    files = {"time": tmp_path / "time.parquet", "quality": tmp_path / "quality.parquet"}
    random = {"shape": "llama-25m", "time": tmp_path / "random.parquet", "quality": None}
    return decode_table([about | files, about | random])


def row(table, engine, shape="ref-neox"):
    return table[(table["engine"] == engine) & (table["shape"] == shape)].iloc[0]


def test_a_row_for_each_run_and_engine_in_a_stable_order(table):
    assert list(table.columns) == DECODE_COLUMNS
    places = table[["shape", "engine"]].to_numpy().tolist()
    assert places == sorted(places)
    assert len(places) == 6


def test_speedups_are_the_ratios_turned_around_with_their_bounds(table):
    ring = row(table, "ring")
    assert [ring[f"speedup_vs_strict{end}"] for end in ENDS] == [2.0, 1 / 0.8, 2.5]
    assert [ring[f"speedup_vs_recompute{end}"] for end in ENDS] == pytest.approx([10, 5, 20])
    assert np.isnan(row(table, "ring", "llama-25m")["speedup_vs_recompute"])


def test_what_was_compared_stands_beside_the_times_and_random_weights_say_so(table):
    assert row(table, "ring")["kl_to_oracle"] == 1e-10
    assert row(table, "ring")["launches_per_step"] == 60
    assert set(table["weights"]) == {"trained", "random"}
    random = row(table, "ring", "llama-25m")
    assert (random["weights"], np.isnan(random["kl_to_oracle"])) == ("random", True)


def test_what_cannot_run_keeps_the_reason_of_its_times(table):
    graph = row(table, "ring-graph")
    assert (graph["status"], graph["why"]) == ("unavailable", "no GPU")


@pytest.mark.parametrize("names", [DECODE_COLUMNS, slope_rows().columns], ids=["decode", "age"])
def test_every_column_is_explained(names):
    bounds = {name for name in names if str(name).endswith(("_lo", "_hi"))} | {"lo", "hi"}
    stems = {str(name)[:-3] for name in bounds if "_" in str(name)}
    assert stems <= set(names)
    lacking = [name for name in set(names) - bounds if not COLUMNS[name].meaning]
    assert lacking == []


def test_the_page_shows_bounds_with_their_estimates(table):
    page = html_table(table, title="decode")
    assert "2.000 <span" in page or "2.00 <span" in page
    assert "tpot_<wbr>ratio_<wbr>lo" not in page
