"""One method, one file: finding a method's class by name, and what a configuration may set of it.

A registry resolves a name to a module, so importing one method imports no other, and editing one
re-runs only its arms.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from kvpareto.records import digest


@cache
def method_class(package: str, base: type[Any], name: str) -> type[Any]:
    """The one subclass of `base` that `<package>.<name>` defines.

    Raises:
        KeyError: there is no such file.
    """
    module_name = f"{package}.{name}"
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise
        raise KeyError(name) from None
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module_name
    )
    return found


def hyper_parameters(method: type[Any]) -> dict[str, dataclasses.Field[object]]:
    """The fields of a method's dataclass that a configuration may set."""
    return {field.name: field for field in dataclasses.fields(method) if field.init}


def spanned(
    package: str, base: type[Any], kind: str, name: str, sweeps: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Every setting that the sweeps of a method's parameters span; defaults where none is named.

    Args:
        kind: what a method of the package is called in messages.

    Raises:
        ValueError, TypeError: no such method or parameter, a sweep that is no list, or a value that
            the parameter cannot have.
    """
    try:
        method = method_class(package, base, name)  # type: ignore[arg-type]
    except KeyError:
        folder = f"src/{package.replace('.', '/')}"
        raise ValueError(f"no {kind} {name!r}; each file in {folder} is one") from None
    for key, values in sweeps.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{key} must be a non-empty list, not {values!r}: write [{values}]")
    known = hyper_parameters(method)
    unknown = sorted(sweeps.keys() - known.keys())
    if unknown:
        raise ValueError(
            f"{name} has no parameter {unknown[0]!r}; it has {', '.join(known) or 'none'}"
        )
    choices = [sweeps.get(key, [field.default]) for key, field in known.items()]
    for combination in itertools.product(*choices):
        setting = dict(zip(known, combination, strict=True))
        method(**setting)
        yield setting


def readable_id(setting: dict[str, Any], names: list[str], symbols: dict[str, str]) -> str:
    """For example `S4-R64-1f3a9c2e`; equal settings have equal ids, always.

    Args:
        setting: everything that defines the arm; its digest ends the id.
        names: the parameters to be read in the id, in order.
        symbols: short names of parameters; without one the name itself is written.
    """
    parts = [
        value if isinstance(value := setting[name], str) else f"{symbols.get(name, name)}{value}"
        for name in names
    ]
    readable = "-".join(part.replace("_", "") for part in parts)
    return f"{readable}-{digest(setting)}" if readable else digest(setting)
