"""From the merge matrices in the configuration to single arms with stable ids."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kvpareto.merge.offset import PACKAGE, Offset, offset_class, offset_of
from kvpareto.merge_settings import MergeArms
from kvpareto.methods import hyper_parameters, readable_id, spanned
from kvpareto.settings import Settings, SettingsError

YARDSTICKS = ("concat", "full", "zero")
"""Methods that every group has: full attention over the same keys, the model's own prefill, and
the merge without an offset."""

CONTEXT = ("positions", "chunks", "windows")
"""What a setting says beside the method's parameters."""


@dataclass(frozen=True)
class MergeArm:
    """One merge arm: model x task x offset x setting.

    Attributes:
        task: name of a task or a text.
        setting: the method's parameters, positions, chunks, and windows for a text.
    """

    model: str
    task: str
    offset: str
    setting: dict[str, Any]

    @property
    def setting_id(self) -> str:
        return setting_id(self.offset, self.setting)

    @property
    def path(self) -> str:
        """The arm's place below `results/merge/`."""
        return f"{self.model}/{self.task}/{self.offset}/{self.setting_id}"

    @property
    def is_text(self) -> bool:
        return "windows" in self.setting


def setting_id(offset: str, setting: dict[str, Any]) -> str:
    """For example `shared-K2-1f3a9c2e`; equal settings have equal ids, always."""
    kind = offset_class(offset)
    return readable_id(setting, ["positions", *hyper_parameters(kind)], kind.symbols)


def built(arm: dict[str, Any]) -> Offset:
    """The method of an arm as a job's parameters hold it (offset, setting)."""
    own = {name: value for name, value in arm["setting"].items() if name not in CONTEXT}
    return offset_of(arm["offset"], own)


@dataclass(frozen=True)
class MergeBatch:
    """Arms of one method, which one job measures, model after model."""

    offset: str
    arms: tuple[MergeArm, ...]

    @property
    def models(self) -> list[str]:
        return sorted({arm.model for arm in self.arms})

    def tasks(self, model: str) -> list[str]:
        """Tasks of a model that are answered."""
        return sorted({a.task for a in self.arms if a.model == model and not a.is_text})

    def texts(self, model: str) -> list[str]:
        """Texts of a model whose tokens are scored."""
        return sorted({a.task for a in self.arms if a.model == model and a.is_text})


def merge_batches(arms: Iterable[MergeArm]) -> list[MergeBatch]:
    """The arms by method."""
    groups: dict[str, list[MergeArm]] = {}
    for arm in arms:
        groups.setdefault(arm.offset, []).append(arm)
    return [MergeBatch(offset, tuple(group)) for offset, group in groups.items()]


def merge_arms(settings: Settings) -> list[MergeArm]:
    """All merge arms of a study, each once, in a stable order; the yardsticks among them.

    Raises:
        SettingsError: every arm that is not possible, each with its path and what to do.
    """
    arms: dict[str, MergeArm] = {}
    problems: list[str] = []
    for index, entry in enumerate(settings.merge_memory.arms):
        _settings(f"merge_memory.arms.{index}", entry, problems)
    for name, group in settings.merge.items():
        found: list[tuple[str, dict[str, Any]]] = [(one, {}) for one in YARDSTICKS]
        for index, entry in enumerate(group.arms):
            own = _settings(f"merge.{name}.arms.{index}", entry, problems)
            found += [(entry.offset, setting) for setting in own]
        windows = {"windows": group.windows.model_dump()}
        subjects = [
            *((task, {}) for task in group.tasks),
            *((text, windows) for text in group.texts),
        ]
        for model, (task, cut), positions, (offset, own) in itertools.product(
            group.models, subjects, group.positions, found
        ):
            context = {"positions": positions, "chunks": group.chunks, **cut}
            arm = MergeArm(model, task, offset, own | context)
            arms[arm.path] = arm
    if problems:
        raise SettingsError(
            "the configuration has impossible merge arms:\n  " + "\n  ".join(problems)
        )
    return [arms[path] for path in sorted(arms)]


def _settings(where: str, entry: MergeArms, problems: list[str]) -> list[dict[str, Any]]:
    """Every setting of an entry; none of an impossible one, which joins the problems."""
    try:
        return list(settings_of(entry))
    except (TypeError, ValueError) as error:
        problems.append(f"{where}: {error}")
        return []


def settings_of(entry: MergeArms) -> Iterator[dict[str, Any]]:
    """Every setting that one entry of a group spans.

    Raises:
        ValueError, TypeError: no such method or parameter, or a value it cannot have.
    """
    return spanned(PACKAGE, Offset, "offset", entry.offset, entry.sweeps)
