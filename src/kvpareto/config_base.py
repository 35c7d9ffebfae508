"""What all settings share: models that reject what they do not know, and errors in words."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
"""A name that becomes part of a path: lower case letters, digits, dots, hyphens."""

GroupName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_]*$")]

_KINDS = ("stdlib", "hub", "episodes", "ruler", "passages", "longbench")
_ADVICE = {
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "required key is missing; add it",
    "list_type": "must be a list: write [value], also for a single value",
}
_FROM_COMMAND_LINE = (
    "a string: --config turns numbers, booleans and nested values into strings; "
    "write a YAML file and pass it with --configfile"
)


class Swept(BaseModel):
    """A method; further keys are its parameters, each a list, and the lists are crossed."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    @property
    def sweeps(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


MethodName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]


def unknown(where: str, names: list[str], kind: str, known: Collection[str]) -> list[str]:
    """A complaint about every name that is not known."""
    return [
        f"{where}: {name!r} is not defined under {kind}; known: {', '.join(known) or 'none'}"
        for name in names
        if name not in known
    ]


def without_null(groups: Any) -> Any:
    """An overlay cannot remove a key, so `group: null` takes a group out."""
    if not isinstance(groups, dict):
        return groups
    return {name: group for name, group in groups.items() if group is not None}


def explain(error: Any) -> str:
    """One line for one pydantic error: path, what is wrong, the value, what to do."""
    # pydantic puts the kind of a text or a task behind its name: no place in the file.
    parts = [part for i, part in enumerate(error["loc"]) if not (i == 2 and part in _KINDS)]
    path = ".".join(map(str, parts))
    kind, value = error["type"], error["input"]
    advice = _ADVICE.get(kind, error["msg"].removeprefix("Value error, "))
    if isinstance(value, str) and kind.endswith("_type") and kind != "string_type":
        advice += f" (this is {_FROM_COMMAND_LINE})"
    shown = "" if kind in ("missing", "value_error") else f" (got {_short(value)})"
    return f"{path}: {advice}{shown}" if path else advice


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


LOCAL = ("resources/", "results/", "/", "./", "../")
"""How the path of a local folder begins."""


def need_revision(path: str, revision: str | None) -> None:
    """Refuse a hub id without a pinned commit.

    Raises:
        ValueError: says what to do.
    """
    if not path.startswith(LOCAL) and revision is None:
        raise ValueError(
            f"{path!r} is a hub id and has no revision; pin the commit, or write a local folder "
            "with a leading ./"
        )
