"""One set of versions in three places: pyproject.toml, pip constraints, conda environment."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [Requirement(line) for line in PROJECT["dependencies"]]
FOR_TESTS = [Requirement(line) for line in PROJECT["optional-dependencies"]["test"]]
FOR_PEERS = [Requirement(line) for line in PROJECT["optional-dependencies"]["peers"]]
IMPORTED_AS = {"yaml": "pyyaml"}
"""Import names that differ from the name of their distribution."""


def pins(lines: list[str]) -> dict[str, Version]:
    """Canonical name to pinned version; each line must be `name==version`."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        (one,) = requirement.specifier
        assert one.operator == "==", f"{line} is not an exact pin"
        found[canonicalize_name(requirement.name)] = Version(one.version)
    return found


def constraints() -> dict[str, Version]:
    lines = (ROOT / "envs/constraints.txt").read_text(encoding="utf-8").splitlines()
    return pins([line for line in lines if not line.startswith("#")])


def conda() -> tuple[list[str], list[str], list[str]]:
    """Channels, conda's own packages, pip's packages."""
    content = yaml.safe_load((ROOT / "envs/kvpareto.yaml").read_text(encoding="utf-8"))
    (by_pip,) = (one["pip"] for one in content["dependencies"] if isinstance(one, dict))
    own = [one for one in content["dependencies"] if isinstance(one, str)]
    return content["channels"], own, by_pip


@pytest.mark.parametrize("requirement", DIRECT + FOR_TESTS + FOR_PEERS, ids=str)
def test_every_direct_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pinned = constraints().get(canonicalize_name(requirement.name))
    assert pinned, f"envs/constraints.txt does not pin {requirement.name}"
    assert pinned in requirement.specifier, f"{requirement.name}=={pinned} is not {requirement}"


def test_pins_suit_every_build() -> None:
    """A local version (2.13.0+cpu) would shut out the same release built for a GPU."""
    assert not [name for name, version in constraints().items() if version.local]


def test_conda_has_the_direct_dependencies_at_the_same_versions() -> None:
    channels, own, by_pip = conda()
    pinned = constraints()
    names = [canonicalize_name(requirement.name) for requirement in DIRECT]
    assert channels == ["conda-forge", "nodefaults"]
    assert own == ["python=3.11", "pip"]
    assert pins(by_pip) == {name: pinned[name] for name in names}
    extras = {requirement.name: requirement.extras for requirement in map(Requirement, by_pip)}
    assert extras == {requirement.name: requirement.extras for requirement in DIRECT}


def test_python_of_conda_is_allowed() -> None:
    _, own, _ = conda()
    allowed = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert own[0].removeprefix("python=") in allowed


def test_what_the_package_imports_is_a_direct_dependency() -> None:
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT + FOR_PEERS}
    missing = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names:
                name = canonicalize_name(IMPORTED_AS.get(top, top))
                if top != "kvpareto" and name not in declared:
                    missing.add(f"{path.relative_to(ROOT)} imports {top}")
    assert not missing, f"not in pyproject.toml: {'; '.join(sorted(missing))}"
