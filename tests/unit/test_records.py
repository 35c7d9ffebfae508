"""Result files: whole or not there, the same bytes for the same content, and loud when damaged."""

import contextlib
import errno
import hashlib
import json
import math
import os
import random
import stat
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvpareto import records
from kvpareto.records import (
    RecordError,
    atomic_path,
    canonical_json,
    digest,
    file_sha256,
    read_json,
    read_parquet,
    write_csv,
    write_json,
    write_parquet,
    write_text,
)

FRAME = pd.DataFrame(
    {
        "document": np.repeat(np.arange(3, dtype=np.int32), 40),
        "nll_nats": np.random.default_rng(0).random(120).astype(np.float32),
        "pruned": np.arange(120) % 3 == 0,
        "status": ["ok"] * 119 + ["invalid"],
    }
)

WRITERS = {
    "a.txt": lambda path: write_text(path, "words\n" * 20000),
    "a.json": lambda path: write_json(path, list(range(20000))),
    "a.csv": lambda path: write_csv(path, pd.concat([FRAME] * 100)),
    "a.parquet": lambda path: write_parquet(
        path, pd.DataFrame({"x": np.random.default_rng(0).random(20000)})
    ),
}
every_writer = pytest.mark.parametrize("name", WRITERS)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Atomic files.


@every_writer
def test_a_file_appears_whole_and_alone(tmp_path, name):
    path = tmp_path / "new" / "folder" / name
    WRITERS[name](path)
    assert names(path.parent) == [name]
    assert path.stat().st_size > 10000


def test_the_temporary_file_lies_beside_the_target_and_has_its_suffix(tmp_path):
    with atomic_path(tmp_path / "a.parquet") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".parquet"
        assert not (tmp_path / "a.parquet").exists()


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError, OSError])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        write_half()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_the_bytes_are_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("replace"), replace(*paths)))
    write_text(tmp_path / "a.txt", "text")
    assert order == ["fsync", "replace"]


@every_writer
def test_a_full_disk_names_the_target_and_leaves_nothing(tmp_path, monkeypatch, name):
    path = tmp_path / name
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"{path}: No space left on device") as caught:
        WRITERS[name](path)
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == [name]
    assert path.read_bytes() == b"old"


def test_a_disk_that_fills_up_in_the_middle_names_the_target_and_leaves_nothing(tmp_path):
    """In a process that may write 5 KB to a file: the writers' own errors, not a simulated one."""
    code = f"""
import resource, signal
import numpy as np, pandas as pd
from kvpareto import records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
frame = pd.DataFrame({{"x": np.random.default_rng(0).random(20000)}})
for name in ("write_csv", "write_parquet", "write_json"):
    value = list(range(20000)) if name == "write_json" else frame
    try:
        getattr(records, name)({str(tmp_path)!r} + "/" + name, value)
    except OSError as error:
        print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(records.__file__).parents[1])}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    for line, name in zip(lines, ("write_csv", "write_parquet", "write_json"), strict=True):
        assert f"could not write {tmp_path / name}: " in line
        assert "File too large" in line
        assert line.endswith("nothing was left behind")
    assert names(tmp_path) == []


def test_others_may_read_a_result_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "text")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


# Canonical JSON and digests.


@given(values)
def test_canonical_json_is_json_without_spaces_outside_strings(value):
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text
    assert text.isascii()


@given(st.dictionaries(st.text(string.ascii_letters), values, min_size=2), st.randoms())
def test_a_digest_does_not_depend_on_the_order_of_keys(value, shuffler: random.Random):
    items = list(value.items())
    shuffler.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)
    assert digest({"deep": [dict(items)]}) == digest({"deep": [value]})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ([1, 2], [2, 1]),
    ],
)
def test_different_values_have_different_digests(one, other):
    assert digest(one) != digest(other)


def test_digests_are_pinned_and_as_long_as_asked_for():
    """Every path of every result has one in it."""
    value = {"cap": 512, "sinks": 4}
    assert canonical_json(value) == '{"cap":512,"sinks":4}'
    full = hashlib.sha256(b'{"cap":512,"sinks":4}').hexdigest()
    assert (digest(value), digest(value, 16), digest(value, 64)) == (full[:8], full[:16], full)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_spell_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": value})
    assert names(tmp_path) == []


def test_file_sha256_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100000)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 100000).hexdigest()


# What was written can be read.


@given(values)
def test_json_reads_as_it_was_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_equal_json_is_equal_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5, None]})
    write_json(tmp_path / "b.json", {"a": [1.5, None], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_text().endswith("}\n")


def test_parquet_reads_as_it_was_written(tmp_path):
    write_parquet(tmp_path / "a.parquet", FRAME)
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet"), FRAME)


def test_equal_tables_are_equal_bytes_whatever_their_index(tmp_path):
    shuffled = FRAME.sample(frac=1, random_state=0)
    frames = {"a": FRAME, "b": FRAME.copy(), "c": shuffled.sort_index(), "d": FRAME.assign()}
    frames["d"].index = range(1000, 1120)
    for name, frame in frames.items():
        write_parquet(tmp_path / name, frame)
        write_csv(tmp_path / f"{name}.csv", frame)
    for suffix in ("", ".csv"):
        assert len({(tmp_path / f"{name}{suffix}").read_bytes() for name in frames}) == 1


def test_a_table_does_not_say_which_pandas_wrote_it(tmp_path):
    write_parquet(tmp_path / "a.parquet", FRAME)
    assert b"pandas" not in (tmp_path / "a.parquet").read_bytes()
    assert pq.read_schema(tmp_path / "a.parquet").metadata is None


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_parquet(tmp_path / "a.parquet", FRAME.head(0))
    pd.testing.assert_frame_equal(read_parquet(tmp_path / "a.parquet"), FRAME.head(0))


def test_csv_spells_numbers_with_ten_digits_and_lines_with_one_character(tmp_path):
    frame = pd.DataFrame({"x": [1 / 3, 1e-12, 2.0, math.nan], "n": [1, 2, 3, 4]})
    write_csv(tmp_path / "a.csv", frame)
    assert (tmp_path / "a.csv").read_bytes() == b"x,n\n0.3333333333,1\n1e-12,2\n2,3\n,4\n"


# Damage.


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b'{"a": 1}}', b"\xff\xfe", b"PAR1"])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"summary\.json is damaged .*delete it and run again"):
        read_json(path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_table_is_named(tmp_path, kept):
    path = tmp_path / "tokens.parquet"
    write_parquet(path, FRAME)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(RecordError, match=r"tokens\.parquet is damaged .*delete it and run again"):
        read_parquet(path)


def test_changed_bits_in_a_table_are_seen(tmp_path):
    """Without checksums two bits in five change numbers without a word."""
    path = tmp_path / "tokens.parquet"
    write_parquet(path, FRAME)
    whole, silent = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        content = bytearray(whole)
        content[place] ^= 1
        path.write_bytes(content)
        with contextlib.suppress(RecordError):
            frame = read_parquet(path)
            # Names of columns have no checksum.
            silent += frame.columns.equals(FRAME.columns) and not frame.equals(FRAME)
    assert silent <= 2


@pytest.mark.parametrize("content", [b"not a table at all, but long enough to be one", b"{}"])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    path = tmp_path / "tokens.parquet"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"tokens\.parquet is damaged"):
        read_parquet(path)


@pytest.mark.parametrize("read", [read_json, read_parquet])
def test_a_missing_file_is_not_called_damaged(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="gone"):
        read(tmp_path / "gone")
