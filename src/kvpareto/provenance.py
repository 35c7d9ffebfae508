"""Where a result comes from: hashes of code, versions, machine, commit.

Snakemake notices an edited script but not an edited module that the script imports. `codehash`
closes the gap: it hashes a script together with every module of this package that its import
statements can reach. It imports nothing of what it reads and looks at content only, so touching a
file changes no hash, and editing one method changes only the hashes of that method's arms.

What a script loads by a computed name (a policy from a registry) cannot be read off its source:
the rule declares it, and `check_imports` fails a job that loaded anything undeclared.
"""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from kvpareto.records import digest

PACKAGE = Path(__file__).parent
"""The folder of this package; its name is the first part of every module's name."""

NUMERIC = [
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "datasets",
    "torchao",
    "gguf",
    "xllamacpp",
    "mlx",
    "mlx-lm",
]
"""Distributions whose version may change a number."""


class ClosureError(ValueError):
    """A module that is imported or declared does not exist, or a source file is not Python."""


class UndeclaredImportError(RuntimeError):
    """A job loaded modules that its code hash does not cover."""


@cache
def _statements(source: bytes) -> tuple[tuple[int, int, str, tuple[str, ...]], ...]:
    """Every import statement, at any depth: (line, leading dots, module, names it takes from it).

    Keyed on content, not on time: two quick edits can share a time stamp.
    """
    found: list[tuple[int, int, str, tuple[str, ...]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, 0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append((node.lineno, node.level, node.module or "", names))
    return tuple(found)


def _locate(name: str, package: Path) -> Path | None:
    """The source file of module `name`; None if the package has no such module."""
    first, *rest = name.split(".")
    base = package.joinpath(*rest)
    paths = (base / "__init__.py", base.parent / f"{base.name}.py")
    return next((path for path in paths if first == package.name and path.is_file()), None)


def _imports(path: Path, name: str, package: Path) -> Iterator[tuple[str, str]]:
    """What a file (module `name`, or "" for a script) imports of `package`: (module, file:line)."""
    try:
        statements = _statements(path.read_bytes())
    except (SyntaxError, ValueError) as error:  # ValueError: null bytes, before Python 3.12
        raise ClosureError(f"{path} is not valid Python ({error}); correct it") from error
    parents = (name if path.name == "__init__.py" else name.rpartition(".")[0]).split(".")
    for line, dots, module, names in statements:
        ancestors = parents[: len(parents) - dots + 1] if dots else []
        base = ".".join([*ancestors, module]).strip(".")
        if base.split(".")[0] == package.name:
            # `from a import b`: b is a module only if there is a file for it.
            members = [f"{base}.{one}" for one in names if _locate(f"{base}.{one}", package)]
            yield from ((reached, f"{path.name}:{line}") for reached in (base, *members))


def closure(script: Path | None, *modules: str, package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of this package that a script and `modules` reach by import statements.

    Args:
        script: a Python file outside the package, or None.
        modules: dotted names of modules that are loaded by a computed name.
        package: the package's folder.

    Returns:
        Dotted name to source file, sorted; with parent packages, since `import a.b` runs `a`.

    Raises:
        ClosureError: a module does not exist, or a file is not valid Python.
    """
    pending = [(name, "declared") for name in modules]
    if script is not None:
        pending += _imports(script, "", package)
    found: dict[str, Path] = {}
    while pending:
        name, place = pending.pop()
        if name in found:
            continue
        path = _locate(name, package)
        if path is None:
            raise ClosureError(
                f"{place}: {package.name} has no module {name!r}; correct the name or add the file"
            )
        found[name] = path
        if "." in name:
            pending.append((name.rpartition(".")[0], place))
        pending += _imports(path, name, package)
    return dict(sorted(found.items()))


def codehash(script: Path, *modules: str, package: Path = PACKAGE) -> str:
    """sha256, in hex, of a script and its `closure`: names and raw bytes, no times, no folders.

    Errors are those of `closure`.
    """
    total = hashlib.sha256()
    for name, path in {script.name: script, **closure(script, *modules, package=package)}.items():
        total.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def check_imports(script: Path, *modules: str, package: Path = PACKAGE) -> None:
    """Fail when this process has loaded a module of the package outside the script's closure.

    Called at the end of a script, with the arguments that `codehash` got in the rule.

    Raises:
        UndeclaredImportError: names the modules; other errors are those of `closure`.
    """
    loaded = {name for name in list(sys.modules) if name.split(".")[0] == package.name}
    undeclared = sorted(loaded - closure(script, *modules, package=package).keys())
    if undeclared:
        raise UndeclaredImportError(
            f"{script.name} loaded {', '.join(undeclared)}, which its code hash does not cover: "
            "an edit there would re-run nothing. Import it with a plain import statement, or "
            "declare it in the rule as a further argument of codehash()"
        )


def environment() -> dict[str, str]:
    """Versions of what computes the numbers, found without importing any of it.

    Builtins in a fixed order, which Snakemake can compare; "missing" for what is not installed.
    The version of torch tells its build (2.13.0+cpu).
    """
    versions = {"python": platform.python_version(), "platform": platform.machine()}
    for name in NUMERIC:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def machine() -> str:
    """Processor, cores that this process may use, memory; no host name, no path, no accelerator."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.processor() or platform.machine()
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{cpu}, {cores} core{'s' * (cores != 1)}, {memory_bytes / 2**30:.0f} GiB"


def commit(root: Path) -> tuple[str, bool]:
    """The commit checked out at `root`, and whether files differ from it (ignored files aside).

    ("unknown", True) without git, outside a clone, before the first commit, and for a copy that
    lies inside another project's clone, whose commit says nothing about this code.
    """

    def git(*arguments: str) -> str:
        # Without optional locks, so that a run never gets in the way of a commit made meanwhile.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    try:
        prefix, head = git("rev-parse", "--show-prefix", "HEAD").splitlines()
        return ("unknown", True) if prefix else (head, bool(git("status", "--porcelain")))
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def provenance(
    root: Path, code_hash: str, data_hash: str, started: datetime, threads: int
) -> dict[str, Any]:
    """The content of a run's `provenance.json`; times are UTC with microseconds.

    Args:
        root: the repository.
        code_hash: from `codehash`, as the rule passed it.
        data_hash: digest of the data that the run read.
        started: when the run began, with its time zone.
        threads: threads that the run computed with.
    """
    versions = environment()
    checked_out, dirty = commit(root)
    return {
        "code_hash": code_hash,
        "data_hash": data_hash,
        "env_hash": digest(versions),
        "environment": versions,
        "commit": checked_out,
        "dirty": dirty,
        "machine": machine(),
        "started_at": started.astimezone(UTC).isoformat(timespec="microseconds"),
        "made_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "threads": threads,
    }
