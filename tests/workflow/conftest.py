"""Copies of the repository in which the smoke study runs, apart from the user's own results."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WARM = ROOT / "workflow" / "warm.py"
COPIED = ("Snakefile", "config.yaml", "config", "rules", "workflow", "profiles", "envs", "src")


class Study:
    """A copy of the repository and what one can do with it."""

    config = "config/smoke.yaml"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=ignore)
            else:
                shutil.copy(source, folder / name)
        shutil.copytree(ROOT / "resources", folder / "resources")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.folder / "src")}

    def command(self, *arguments: str, overlays: tuple[str, ...] = ()) -> list[str]:
        # --configfile takes every word after it, so targets come before it.
        start = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return [*start, "--configfile", self.config, *overlays]

    def warm(self, command: list[str]) -> list[str]:
        """The same command where it runs jobs: each begins with the libraries imported."""
        plain = {"--dry-run", "--unlock", "--lint", "--report", "--rulegraph"}
        return command if plain.intersection(command) else [command[0], str(WARM), *command[3:]]

    def run(
        self, *arguments: str, overlays: tuple[str, ...] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.warm(self.command(*arguments, overlays=overlays)),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def due(self, *arguments: str) -> Counter[tuple[str, str]]:
        """Jobs that a run would do: (rule, wildcards), counted."""
        output = self.run("--dry-run", *arguments)
        found: Counter[tuple[str, str]] = Counter()
        for block in re.split(r"\n(?=\[\w+ \w+ +\d+ )", output.stdout + output.stderr):
            rule = re.search(r"^(?:local)?rule (\w+):", block, re.MULTILINE)
            if rule:
                wildcards = re.search(r"wildcards: (.*)", block)
                found[rule[1], wildcards[1] if wildcards else ""] += 1
        return found

    def table(self, name: str) -> bytes:
        return (self.folder / "results" / "tables" / f"{name}.csv").read_bytes()


@pytest.fixture(scope="session")
def new_study(tmp_path_factory):
    return lambda name: Study(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def finished(new_study) -> Study:
    """A study whose smoke run is complete. Tests that edit it must put everything back."""
    study = new_study("finished")
    study.run()
    return study
