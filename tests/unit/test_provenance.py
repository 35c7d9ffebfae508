"""What a code hash depends on, and what a provenance record says."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from kvpareto import provenance
from kvpareto.provenance import ClosureError, UndeclaredImportError, check_imports, closure

FILES = {
    "study.py": "import json\nfrom pkgtest.measure import stream\n",
    "pkgtest/__init__.py": "",
    "pkgtest/records.py": "",
    "pkgtest/unrelated.py": "",
    "pkgtest/measure/__init__.py": "",
    "pkgtest/measure/stream.py": (
        "import torch.nn\n"
        "from pkgtest.records import write\n"
        "def run(name):\n"
        "    import pkgtest.cache.ring as ring\n"
        "    from importlib import import_module\n"
        "    return import_module(f'pkgtest.policies.{name}')\n"
    ),
    "pkgtest/cache/__init__.py": "",
    "pkgtest/cache/ring.py": "from ..records import write\nfrom . import slots\n",
    "pkgtest/cache/slots.py": "from .ring import Ring\n",
    "pkgtest/policies/__init__.py": "",
    "pkgtest/policies/lazy.py": "from pkgtest.policies import base\n",
    "pkgtest/policies/h2o.py": "from pkgtest.policies import base\n",
    "pkgtest/policies/base.py": "",
}
"""A script and a package in which every kind of import statement occurs, a cycle among them."""

LAZY, H2O = "pkgtest.policies.lazy", "pkgtest.policies.h2o"


def write(folder: Path, **changes: str) -> Path:
    for name, source in (FILES | changes).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "clone")


def codehash(folder: Path, *modules: str) -> str:
    return provenance.codehash(folder / "study.py", *modules, package=folder / "pkgtest")


def reached(folder: Path, *modules: str) -> list[str]:
    return list(closure(folder / "study.py", *modules, package=folder / "pkgtest"))


def test_closure_follows_every_import_statement_and_nothing_else(folder: Path) -> None:
    assert reached(folder) == [
        "pkgtest",
        "pkgtest.cache",
        "pkgtest.cache.ring",  # imported inside a function
        "pkgtest.cache.slots",  # from . import slots
        "pkgtest.measure",
        "pkgtest.measure.stream",  # a submodule after `from`
        "pkgtest.records",  # an attribute after `from`
    ]


def test_closure_of_a_declared_module_holds_it_and_what_it_imports(folder: Path) -> None:
    added = set(reached(folder, LAZY)) - set(reached(folder))
    assert added == {"pkgtest.policies", "pkgtest.policies.base", LAZY}
    alone = closure(None, "pkgtest.records", package=folder / "pkgtest")
    assert alone == {
        "pkgtest": folder / "pkgtest/__init__.py",
        "pkgtest.records": folder / "pkgtest/records.py",
    }


def test_editing_one_method_changes_only_its_own_hash(folder: Path) -> None:
    lazy, h2o, neither = codehash(folder, LAZY), codehash(folder, H2O), codehash(folder)
    (folder / "pkgtest/policies/h2o.py").write_text(FILES["pkgtest/policies/h2o.py"] + "# why\n")
    assert codehash(folder, H2O) != h2o
    assert codehash(folder, LAZY) == lazy
    assert codehash(folder) == neither


@pytest.mark.parametrize("name", ["study.py", "pkgtest/__init__.py", "pkgtest/cache/slots.py"])
def test_editing_anything_reached_changes_the_hash(folder: Path, name: str) -> None:
    before = codehash(folder)
    write(folder, **{name: FILES[name] + "\n"})
    assert codehash(folder) != before


def test_moving_code_between_modules_changes_the_hash(folder: Path) -> None:
    write(folder, **{"pkgtest/records.py": "x = 1\n"})
    before = codehash(folder)
    write(folder, **{"pkgtest/records.py": "", "pkgtest/measure/__init__.py": "x = 1\n"})
    assert codehash(folder) != before


def test_editing_what_is_not_reached_changes_nothing(folder: Path) -> None:
    before = codehash(folder)
    write(folder, **{"pkgtest/unrelated.py": "x = 1\n"})
    assert codehash(folder) == before


def test_touching_every_file_changes_nothing(folder: Path) -> None:
    before = codehash(folder, LAZY)
    for path in folder.rglob("*.py"):
        os.utime(path, (1, 1))
    assert codehash(folder, LAZY) == before


def test_two_clones_agree(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert codehash(copy, LAZY) == codehash(folder, LAZY)
    assert re.fullmatch("[0-9a-f]{64}", codehash(copy))


def test_an_edit_in_the_same_instant_is_seen(folder: Path) -> None:
    """Equal size and equal time stamp: only content tells."""
    path = folder / "pkgtest/records.py"
    path.write_text("x = 1\n")
    os.utime(path, (1, 1))
    before = codehash(folder)
    path.write_text("x = 2\n")
    os.utime(path, (1, 1))
    assert codehash(folder) != before


def test_a_missing_module_is_named_with_the_place_that_wants_it(folder: Path) -> None:
    write(folder, **{"pkgtest/records.py": "\nimport pkgtest.gone\n"})
    with pytest.raises(ClosureError, match=r"records\.py:2: pkgtest has no module 'pkgtest.gone'"):
        codehash(folder)
    with pytest.raises(ClosureError, match=r"declared: pkgtest has no module 'torch'"):
        closure(None, "torch", package=folder / "pkgtest")


@pytest.mark.parametrize("source", ["def broken(:\n", "x = '\0'\n"])
def test_a_source_that_is_not_python_is_named(folder: Path, source: str) -> None:
    write(folder, **{"pkgtest/records.py": source})
    with pytest.raises(ClosureError, match=r"records\.py is not valid Python \(.+\); correct it"):
        codehash(folder)


@pytest.fixture
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The imports of packages that do not exist have no part in what these tests load.
    write(folder, **{"pkgtest/measure/stream.py": "import pkgtest.records\n"})
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "pkgtest"]:
        del sys.modules[name]


def test_a_job_may_load_what_it_imports_and_what_it_declares(importable: Path) -> None:
    importlib.import_module("pkgtest.measure.stream")
    check_imports(importable / "study.py", package=importable / "pkgtest")
    importlib.import_module(LAZY)
    check_imports(importable / "study.py", LAZY, package=importable / "pkgtest")


def test_an_undeclared_dynamic_import_fails_the_job(importable: Path) -> None:
    importlib.import_module("pkgtest.measure.stream")
    importlib.import_module(H2O)
    with pytest.raises(UndeclaredImportError, match=r"study\.py loaded pkgtest\.policies\.h2o,"):
        check_imports(importable / "study.py", LAZY, package=importable / "pkgtest")


def test_the_controller_can_hash_without_torch() -> None:
    code = (
        "import sys; from kvpareto import provenance as p; p.environment(); "
        "p.closure(None, 'kvpareto.provenance'); "
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=_with_package())


def _with_package() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(provenance.PACKAGE.parent)}


def test_this_package_reaches_only_records_from_here() -> None:
    names = list(closure(None, "kvpareto.provenance"))
    assert names == ["kvpareto", "kvpareto.provenance", "kvpareto.records"]


def test_environment_names_versions_in_a_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = provenance.environment()
    assert list(versions)[:3] == ["python", "platform", "torch"]
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert all(type(value) is str for value in versions.values())
    monkeypatch.setattr(provenance, "NUMERIC", ["no-such-distribution"])
    assert provenance.environment()["no-such-distribution"] == "missing"


def test_machine_tells_cores_and_memory_but_no_host() -> None:
    text = provenance.machine()
    assert re.fullmatch(r"[^/\n]+, \d+ cores?, \d+ GiB", text)
    assert os.uname().nodename not in text


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with one commit, unmoved by a hook that may be running these tests."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "repository"
    (root / "inner").mkdir(parents=True)
    (root / ".gitignore").write_text("results/\n")
    git(root, "init", "--quiet")
    git(root, "add", ".gitignore")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def git(root: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    command = ["git", "-C", str(root), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_dirty_by_edits_and_new_files_but_not_by_ignored_ones(clone: Path) -> None:
    head = git(clone, "rev-parse", "HEAD")
    (clone / "results").mkdir()
    (clone / "results" / "run.json").write_text("{}")
    assert provenance.commit(clone) == (head, False)
    (clone / "new.py").write_text("")
    assert provenance.commit(clone) == (head, True)
    (clone / "new.py").unlink()
    (clone / ".gitignore").write_text("results/\nreports/\n")
    assert provenance.commit(clone) == (head, True)


def test_commit_is_unknown_where_git_cannot_tell(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = ("unknown", True)
    assert provenance.commit(tmp_path / "nowhere") == unknown
    assert provenance.commit(clone / "inner") == unknown  # another project's clone around a copy
    git(tmp_path, "init", "--quiet", "empty")
    assert provenance.commit(tmp_path / "empty") == unknown  # no commit yet
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit(clone) == unknown  # no git


def test_provenance_is_plain_json_with_utc_times(clone: Path) -> None:
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    record = provenance.provenance(clone, "c0de", "da7a", started, threads=2)
    assert json.loads(json.dumps(record)) == record
    assert (record["code_hash"], record["data_hash"], record["threads"]) == ("c0de", "da7a", 2)
    assert (record["commit"], record["dirty"]) == (git(clone, "rev-parse", "HEAD"), False)
    assert record["started_at"] == "2026-01-02T01:04:05.000000+00:00"
    assert datetime.fromisoformat(record["made_at"]) <= datetime.now(UTC)
    assert record["environment"] == provenance.environment()
    assert re.fullmatch("[0-9a-f]{8}", record["env_hash"])
