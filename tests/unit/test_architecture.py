"""The house plan of docs/architecture.md: imports point downwards, and files stay what they are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "kvpareto"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVELS = (
    ("cli",),
    ("merge",),
    ("engine",),
    ("reuse",),
    ("measure",),
    ("models", "report"),
    ("text", "cache", "claims"),
    ("attention", "eviction"),
    ("jobs",),
    ("settings", "provenance"),
    (
        "model_settings",
        "text_settings",
        "eviction_settings",
        "task_settings",
        "reuse_settings",
        "merge_settings",
        "attention_settings",
        "decode_settings",
        "claim_settings",
    ),
    ("reference_settings",),
    ("config_base", "methods"),
    ("records",),
)
"""Rooms from top to bottom. A room may import rooms of lower levels and itself, nothing beside."""

HEIGHT = {room: -level for level, rooms in enumerate(LEVELS) for room in rooms}

MAX_LINES = 300


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that any import statement names; "." first: relative."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(room: str, source: str) -> list[str]:
    """The imports of a module of `room` that the house plan forbids, each with its line and why."""
    found = []
    for line, name in imported(source):
        top, *rest = name.split(".")
        if name.startswith("."):
            found.append(f"line {line}: relative import {name}; write it in full")
        elif top == "snakemake":
            found.append(f"line {line}: import of {name}; snakemake stays in workflow/scripts")
        elif top == "kvpareto" and rest and rest[0] != room:
            if rest[0] not in HEIGHT:
                found.append(f"line {line}: {name} is in no room of the house plan")
            elif HEIGHT[rest[0]] >= HEIGHT[room]:
                found.append(f"line {line}: {room} may not import {name}: not on a lower level")
    return found


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_imports_point_downwards(path: Path) -> None:
    room = room_of(path)
    assert room in HEIGHT or room == "__init__", f"{room} has no place in the house plan"
    found = violations(room, path.read_text(encoding="utf-8"))
    assert not found, f"{label(path)}: " + "; ".join(found)


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        ("cache", "from kvpareto.models.load import load", "may not import kvpareto.models.load"),
        ("measure", "import kvpareto.merge.offset", "may not import kvpareto.merge.offset"),
        ("cache", "from kvpareto import claims", "may not import kvpareto.claims"),
        ("eviction", "from kvpareto.attention.rope import Rotary", "not on a lower level"),
        ("settings", "from kvpareto.provenance import codehash", "not on a lower level"),
        ("records", "def f():\n    import kvpareto.settings", "line 2: records may not import"),
        ("measure", "from kvpareto.helpers import x", "kvpareto.helpers.x is in no room"),
        ("report", "from snakemake.script import snakemake", "import of snakemake.script"),
        ("text", "from . import tokenizer", "relative import"),
    ],
)
def test_a_forbidden_import_is_named(room: str, source: str, complaint: str) -> None:
    assert [complaint in one for one in violations(room, source)] == [True]


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("measure", "from kvpareto.eviction.policy import Clock\nimport torch"),
        ("text", "from kvpareto.text.tasks import needle"),
        ("provenance", "from kvpareto.records import digest"),
        ("cli", "from kvpareto import settings"),
    ],
)
def test_imports_downwards_and_inside_a_room_are_allowed(room: str, source: str) -> None:
    assert violations(room, source) == []


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_modules_are_short_and_package_files_are_empty(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.name == "__init__.py":
        # Anything here would enter the code hash of every module beside it.
        assert source == "", f"{label(path)} must be empty"
    lines = source.count("\n")
    assert lines <= MAX_LINES, f"{label(path)} has {lines} lines; divide it by concern"


def test_every_folder_of_modules_is_a_package() -> None:
    """Without `__init__.py` the code hash would not find what is in the folder."""
    folders = {path.parent for path in MODULES}
    missing = [label(one) for one in folders if not (one / "__init__.py").exists()]
    assert not missing, f"no __init__.py in {', '.join(sorted(missing))}"


def test_what_every_start_of_the_workflow_imports_is_not_slow() -> None:
    """Engines, policies, strategies and offsets are asked for their parameters at every start."""
    rules = (ROOT / "rules" / "common.smk").read_text(encoding="utf-8")
    wanted = re.findall(r"^from (kvpareto[\w.]*) import", rules, re.MULTILINE)
    assert "kvpareto.engine.arms" in wanted
    wanted += [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for folder in ("engine/engines", "eviction/policies", "reuse/selection", "merge/offsets")
        for path in sorted((PACKAGE / folder).glob("[a-z]*.py"))
    ]
    slow = "{'transformers.modeling_utils', 'sklearn', 'torch._inductor.metrics'}"
    code = "; ".join(
        [f"import {name}" for name in wanted] + [f"import sys; print({slow} & set(sys.modules))"]
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_path_of_one_machine_is_written_down() -> None:
    shipped = [ROOT / "Snakefile", *ROOT.glob("config*.yaml")]
    for folder in ("src", "rules", "workflow", "config", "profiles"):
        shipped += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [
        f"{label(path)}:{number}: {line.strip()}"
        for path in shipped
        if path.suffix in {"", ".py", ".smk", ".yaml", ".json", ".rst"} and path.exists()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if str(ROOT) in line or tempfile.gettempdir() + "/" in line
    ]
    assert not found, "\n".join(found)
