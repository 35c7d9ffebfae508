"""From the decode groups in the configuration to single runs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kvpareto.decode_settings import EngineArms, ShapeSettings
from kvpareto.engine.engine import (
    FULL,
    PACKAGE,
    YARDSTICK,
    Arm,
    Engine,
    TorchEngine,
    engine_class,
    engine_name,
    engine_of,
)
from kvpareto.methods import spanned
from kvpareto.settings import Settings, SettingsError


@dataclass(frozen=True)
class DecodeRun:
    """Engines that take turns in one process."""

    group: str
    shape: str
    cap: int
    threads: int
    arms: tuple[Arm, ...]

    @property
    def name(self) -> str:
        """Group and shape as a part of a rule's name."""
        return f"{self.group}_{self.shape}".replace("-", "_").replace(".", "_")

    @property
    def place(self) -> str:
        """Its place below `results/decode/`, without the threads."""
        return f"{self.group}/{self.shape}/cap{self.cap}"

    @property
    def path(self) -> str:
        """Its place below `results/decode/`."""
        return f"{self.place}/threads{self.threads}"

    @property
    def engines(self) -> list[str]:
        """Names of the engines' modules."""
        return sorted({name for name, _ in self.arms})

    @property
    def gguf(self) -> list[str]:
        """Types of GGUF files that its engines read."""
        kinds = {engine_of(name, parameters).gguf for name, parameters in self.arms}
        return sorted(kind for kind in kinds if kind is not None)


def decode_runs(settings: Settings) -> list[DecodeRun]:
    """All runs of a study, in a stable order.

    Raises:
        SettingsError: every engine that is not possible, each with its path and what to do.
    """
    runs: list[DecodeRun] = []
    problems: list[str] = []
    for name, group in settings.decode.groups.items():
        own = _arms(f"decode.groups.{name}.arms", group.arms, problems)
        arms = {YARDSTICK: (YARDSTICK, {}), **own}
        for shape, cap, threads in itertools.product(group.shapes, group.caps, group.threads):
            runs.append(DecodeRun(name, shape, cap, threads, tuple(arms.values())))
    _refuse(problems)
    return runs


def age_arms(settings: Settings) -> list[Arm]:
    """The engines whose age is measured, and the cache that is not bounded, in a stable order.

    Raises:
        SettingsError: as `decode_runs`, or an engine that gives no logits.
    """
    problems: list[str] = []
    arms = _arms("decode.age.engines", settings.decode.age.engines, problems)
    known = {engine for engine, _ in arms.values()}
    problems += [
        f"decode.age.engines.{index}: {entry.engine} gives no logits; take another engine"
        for index, entry in enumerate(settings.decode.age.engines)
        if entry.engine in known and not issubclass(engine_class(entry.engine), TorchEngine)
    ]
    _refuse(problems)
    return [*arms.values(), FULL]


def _arms(where: str, entries: list[EngineArms], problems: list[str]) -> dict[str, Arm]:
    """Every arm that the entries span, by name; what is impossible joins the problems."""
    arms: dict[str, Arm] = {}
    for index, entry in enumerate(entries):
        try:
            for parameters in spanned(PACKAGE, Engine, "engine", entry.engine, entry.sweeps):
                arms[engine_name(entry.engine, parameters)] = (entry.engine, parameters)
        except (TypeError, ValueError) as error:
            problems.append(f"{where}.{index}: {error}")
    return arms


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SettingsError("the configuration has impossible engines:\n  " + "\n  ".join(problems))


def compared(runs: list[DecodeRun], shapes: dict[str, ShapeSettings]) -> list[DecodeRun]:
    """One run for each place whose weights are trained: what is held against the oracle."""
    return [
        run
        for _, same in itertools.groupby(runs, lambda run: run.place)
        for run in [next(same)]
        if shapes[run.shape].model is not None
    ]
