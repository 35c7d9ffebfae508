"""HTML tables: complete, self-contained, rounded for the eye and exact for sorting."""

import html.parser
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvpareto.claims.ledger import CLAIM_COLUMNS, TEST_COLUMNS
from kvpareto.claims.negative import COLUMNS as NEGATIVE
from kvpareto.claims.recommend import COLUMNS as RECOMMENDED
from kvpareto.measure.probing import ROW
from kvpareto.measure.spikes import SPIKE_COLUMNS
from kvpareto.records import read_parquet
from kvpareto.report.columns import COLUMNS, Column
from kvpareto.report.tables import html_table, write_table

EVICTION = pd.DataFrame(
    {
        "policy": ["lazy", "h2o"],
        "setting": ["cap512-peak-S4-R64-1f3a9c2e", "cap512-peak-S4-0badcafe"],
        "cap": pd.array([512, pd.NA], dtype="Int64"),
        "extrapolating": [False, None],
        "alias_of": ["", None],
        "ppl": [20.18114, np.nan],
        "ppl_delta_pct": [2.1349, np.nan],
        "ppl_delta_lo": [1.9, np.nan],
        "ppl_delta_hi": [2.4049, np.nan],
        "kv_bytes": [3 * 2**20, np.nan],
        "status": ["ok", "timeout"],
        "why": ["", "longer than 60 s <limit>"],
    }
)

MEMORY = ("layout", "staging", "part", "bytes", "analytic_bytes", "status")

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


class Page(html.parser.HTMLParser):
    """Headings, rows of cells (text, attributes), and whether tags are balanced."""

    def __init__(self, source):
        super().__init__()
        self.open, self.rows, self.heads, self.references = [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.references += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag in ("meta", "wbr"):
            return
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append(["", attributes])
        if tag == "th":
            self.heads.append(["", attributes])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.rows[-1][-1][0] += data
        elif "th" in self.open:
            self.heads[-1][0] += data


def page(frame, **more):
    parsed = Page(html_table(frame, title="eviction", **more))
    assert parsed.open == []
    return parsed


def cells(frame, **more):
    return [[text for text, _ in row] for row in page(frame, **more).rows[1:]]


def one(value, name="x", **more):
    """The text of the cell of a table with one value."""
    return cells(pd.DataFrame({name: [value]}), **more)[0][0]


HEADS = [
    *("policy", "setting", "capentries", "extrapolating", "ppl", "ppl_delta_pct%"),
    *("kv_bytesbytes", "status", "alias_of", "why"),
]


def test_remarks_stand_at_the_right_end():
    """Long words would push the figures off the page."""
    assert [text for text, _ in page(EVICTION).heads] == HEADS


def test_bounds_stand_in_the_cell_of_their_estimate():
    first, second = cells(EVICTION)
    delta = HEADS.index("ppl_delta_pct%")
    assert first[delta] == "+2.13 [1.90, 2.40]"
    assert second[delta] == DASH


def test_words_that_are_the_same_in_every_row_stand_above_the_table():
    frame = pd.DataFrame({"model": ["m"] * 3, "policy": list("abc"), "why": [""] * 3})
    parsed = page(frame)
    assert [text for text, _ in parsed.heads] == ["policy"]
    source = html_table(frame, title="t")
    assert "In every row: model m." in source
    assert "Empty in every row: why." in source


def test_bounds_without_a_prefix_go_with_value_or_estimate():
    for name in ("value", "estimate"):
        frame = pd.DataFrame({name: [1.5], "lo": [1.25], "hi": [1.75]})
        assert cells(frame) == [["1.500 [1.250, 1.750]"]]


def test_bounds_go_with_an_estimate_that_names_its_unit():
    frame = pd.DataFrame({"peak_nats": [0.5], "peak_lo": [0.25], "peak_hi": [0.75]})
    assert cells(frame) == [["0.500 [0.250, 0.750]"]]


def test_an_exact_value_is_written_without_its_bounds():
    assert cells(pd.DataFrame({"value": [1.5], "lo": [1.5], "hi": [1.5]})) == [["1.500"]]


def test_an_interval_without_an_estimate_is_one_cell_that_sorts_by_its_upper_bound():
    frame = pd.DataFrame({"peak_nats": [0.5], "peak_null_lo": [-0.25], "peak_null_hi": [0.75]})
    parsed = page(frame)
    assert [text for text, _ in parsed.heads] == ["peak_natsnats", "peak_nullnats"]
    text, attributes = parsed.rows[1][1]
    assert text == f"[{MINUS}0.250, 0.750]"
    assert attributes["data-key"] == "0.75"
    assert cells(frame.assign(peak_null_lo=np.nan, peak_null_hi=np.nan))[0][1] == DASH


def test_bounds_without_an_estimate_stay_columns():
    assert cells(pd.DataFrame({"x_lo": [1.0], "x_hi": [2.0]})) == [["1.000", "2.000"]]


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (20.18114, "ppl", "20.18"),
        (1234.5, "ppl", "1,234"),
        (0.0312345, "tpot_ratio", "0.0312"),
        (41.04, "tpot_ms_p50", "41.0"),
        (4096, "cap", "4,096"),
        (512.5, "cap", "512.5"),
        (-0.1234, "ppl_delta_pct", f"{MINUS}0.12"),
        (0.001, "ppl_delta_pct", "0.00"),
        (1034.2, "ppl_delta_pct", "+1,034"),
        (np.inf, "ppl_delta_pct", "+∞"),
        (900, "kv_bytes", "900 B"),
        (3 * 2**20, "kv_bytes", "3 MiB"),
        (True, "extrapolating", "yes"),
        (7, "unknown", "7"),
        (0.5, "unknown", "0.5000"),
        ("word", "ppl", "word"),
        (np.nan, "ppl", DASH),
        (None, "why", DASH),
    ],
)
def test_numbers_are_rounded_by_the_kind_of_their_column(value, name, text):
    assert one(value, name) == text


def test_bounds_far_wider_than_the_estimate_set_the_decimals():
    frame = pd.DataFrame({"x": [0.000123], "x_lo": [-0.5], "x_hi": [0.5]})
    assert cells(frame) == [[f"0.0001 [{MINUS}0.5000, 0.5000]"]]


def test_missing_values_are_dashes_and_sort_as_nothing():
    row = page(EVICTION).rows[2]
    assert [row[index][0] for index in (2, 3, 4, 5, 6, 8)] == [DASH] * 6
    assert row[HEADS.index("ppl")][1]["data-key"] == ""


def test_cells_keep_the_exact_number_for_sorting():
    assert page(EVICTION).rows[1][HEADS.index("ppl")][1]["data-key"] == "20.18114"


def test_a_status_is_coloured_and_written_out():
    row_ok, row_timeout = page(EVICTION).rows[1:]
    undecided, untested = (
        page(pd.DataFrame({"verdict": [verdict]})).rows[1][0]
        for verdict in ("undecided", "not tested here")
    )
    for (text, attributes), status, tone in (
        (row_ok[HEADS.index("status")], "ok", "good"),
        (row_timeout[HEADS.index("status")], "timeout", "bad"),
        (undecided, "undecided", "open"),
        (untested, "not tested here", "idle"),
    ):
        assert text == status
        assert tone in attributes["class"].split()


@pytest.mark.parametrize("tone", ["good", "bad", "open", "idle"])
def test_every_tone_has_a_sign_beside_its_colour(tone):
    source = html_table(EVICTION, title="t")
    assert re.search(rf"\.{tone} \{{ background", source)
    assert re.search(rf"\.{tone}::before \{{ content", source)


@pytest.mark.parametrize(
    "names",
    [SPIKE_COLUMNS, CLAIM_COLUMNS, TEST_COLUMNS, NEGATIVE, RECOMMENDED, ROW, MEMORY],
    ids=["spikes", "claims", "claim_tests", "negative", "recommended", "probes", "memory"],
)
def test_every_column_of_the_leaf_tables_is_explained(names):
    bounds = {f"{stem}_{end}" for stem in ("peak", "area", "ppl_delta") for end in ("lo", "hi")}
    null = {f"{stem}_null_{end}" for stem in ("peak", "area", "width") for end in ("lo", "hi")}
    assert set(names) - {"lo", "hi"} - bounds - null <= set(COLUMNS)


def test_the_page_asks_nothing_of_the_network_and_escapes_what_it_shows():
    source = html_table(EVICTION, title="a <b> & c", caption="x < y")
    assert Page(source).references == []
    assert not re.search(r"https?:|@import|url\(", source)
    for escaped in ("&lt;limit&gt;", "a &lt;b&gt; &amp; c", "x &lt; y"):
        assert escaped in source


def test_columns_are_explained_as_tooltips_and_in_a_legend():
    more = {"width": Column("number", "how wide it is", "cm")}
    source = html_table(pd.DataFrame({"width": [2.0], "ppl": [3.0]}), title="t", columns=more)
    assert 'title="how wide it is"' in source
    assert "<dt>width</dt><dd>how wide it is [cm]</dd>" in source
    assert "<dt>ppl</dt>" in source


def test_the_page_says_how_many_rows_failed():
    assert "2 rows, 1 without a result." in html_table(EVICTION, title="t")
    assert "1 row, all ok." in html_table(EVICTION.iloc[:1], title="t")


def test_an_empty_table_is_a_page_too():
    assert page(EVICTION.iloc[:0]).rows[1:] == []


def test_csv_parquet_and_html_hold_the_same_rows_and_repeat_to_the_byte(tmp_path):
    for name in ("a.1", "b"):
        write_table(EVICTION, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.1.csv", "a.1.html", "a.1.parquet"),
        *("b.csv", "b.html", "b.parquet"),
    ]
    for suffix in ("csv", "parquet"):
        first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("a.1", "b"))
        assert first == second
    assert read_parquet(tmp_path / "b.parquet")["policy"].tolist() == ["lazy", "h2o"]
    assert pd.read_csv(tmp_path / "b.csv")["ppl"][0] == 20.18114
    assert "<h1>a.1</h1>" in (tmp_path / "a.1.html").read_text()


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e12, 1e12), st.floats(0, 1e6), st.sampled_from(["ppl", "ppl_delta_pct"]))
def test_what_is_shown_is_near_what_is_meant(value, reach, name):
    stem = name.removesuffix("_pct")
    frame = pd.DataFrame(
        {name: [value], f"{stem}_lo": [value - reach], f"{stem}_hi": [value + reach]}
    )
    shown = cells(frame)[0][0].split(" ")[0]
    number = float(shown.replace(",", "").replace(MINUS, "-"))
    assert number == pytest.approx(value, rel=1e-3, abs=max(1e-3 * reach, 0.0051))
