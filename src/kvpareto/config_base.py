"""What all settings share: models that reject what they do not know, and errors in words."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_ADVICE = {
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "missing": "required key is missing; add it",
    "list_type": "must be a list: write [value], also for a single value",
}
_FROM_COMMAND_LINE = (
    "a string: --config turns numbers, booleans and nested values into strings; "
    "write a YAML file and pass it with --configfile"
)


def explain(error: Any) -> str:
    """One line for one pydantic error: path, what is wrong, the value, what to do."""
    path = ".".join(str(part) for part in error["loc"] if part not in ("stdlib", "hub"))
    kind, value = error["type"], error["input"]
    advice = _ADVICE.get(kind, error["msg"].removeprefix("Value error, "))
    if isinstance(value, str) and kind.endswith("_type") and kind != "string_type":
        advice += f" (this is {_FROM_COMMAND_LINE})"
    shown = "" if kind in ("missing", "value_error") else f" (got {_short(value)})"
    return f"{path}: {advice}{shown}" if path else advice


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
