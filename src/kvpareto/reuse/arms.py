"""From the reuse matrices in the configuration to single arms with stable ids."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kvpareto.methods import hyper_parameters, readable_id, spanned
from kvpareto.reuse.drop import drop_of
from kvpareto.reuse.strategy import PACKAGE, Strategy, strategy_class, strategy_of
from kvpareto.reuse_settings import ReuseArms
from kvpareto.settings import Settings, SettingsError

REFERENCE = "none"
"""The strategy that every other one is compared with: a full prefill."""

KEEP_ALL = "none"
"""The drop that drops nothing."""


@dataclass(frozen=True)
class ReuseArm:
    """One reuse arm: model x task x strategy x setting.

    Attributes:
        setting: the strategy's parameters, and `drop`: none, or a name and its parameters.
        timed: whether a group of the study wants its time; no part of what the arm is.
    """

    model: str
    task: str
    strategy: str
    setting: dict[str, Any]
    timed: bool = field(default=True, compare=False)

    @property
    def setting_id(self) -> str:
        return setting_id(self.strategy, self.setting)

    @property
    def path(self) -> str:
        """The arm's place below `results/reuse/`."""
        return f"{self.model}/{self.task}/{self.strategy}/{self.setting_id}"

    @property
    def drop(self) -> str:
        """The name of its drop."""
        drop = self.setting["drop"]
        return KEEP_ALL if drop == KEEP_ALL else str(drop["name"])


def setting_id(strategy: str, setting: dict[str, Any]) -> str:
    """For example `c1-r0.15-1f3a9c2e`; equal settings have equal ids, always."""
    kind = strategy_class(strategy)
    names = [name for name in hyper_parameters(kind) if name in setting]
    drop = setting["drop"]
    if drop == KEEP_ALL:
        return readable_id(setting, names, kind.symbols)
    return f"{drop['name']}-{readable_id(setting, names, kind.symbols)}"


def built(arm: dict[str, Any]) -> Strategy:
    """The strategy of an arm as a job's parameters hold it (strategy, setting)."""
    own = {name: value for name, value in arm["setting"].items() if name != "drop"}
    return strategy_of(arm["strategy"], own)


@dataclass(frozen=True)
class ReuseBatch:
    """Arms of one model and strategy, whose quality one job measures."""

    model: str
    strategy: str
    arms: tuple[ReuseArm, ...]

    @property
    def name(self) -> str:
        """A name for the job: letters, digits and underscores."""
        return re.sub(r"\W", "_", f"reuse_quality_{self.model}_{self.strategy}")

    @property
    def paths(self) -> list[str]:
        return [arm.path for arm in self.arms]

    @property
    def tasks(self) -> list[str]:
        return sorted({arm.task for arm in self.arms})


def reuse_batches(arms: Iterable[ReuseArm]) -> list[ReuseBatch]:
    """The arms by model and strategy."""
    groups: dict[tuple[str, str], list[ReuseArm]] = {}
    for arm in arms:
        groups.setdefault((arm.model, arm.strategy), []).append(arm)
    return [ReuseBatch(*key, tuple(group)) for key, group in groups.items()]


def reuse_arms(settings: Settings) -> list[ReuseArm]:
    """All reuse arms of a study, each once, in a stable order; the references among them.

    Raises:
        SettingsError: every arm that is not possible, each with its path and what to do.
    """
    arms: dict[str, ReuseArm] = {}
    problems: list[str] = []
    for name, drop in settings.drops.items():
        try:
            drop_of(drop.method, drop.parameters)
        except KeyError:
            problems.append(
                f"drops.{name}.method: no drop {drop.method!r}; each file in "
                "src/kvpareto/reuse/drops is one"
            )
        except (TypeError, ValueError) as error:
            problems.append(f"drops.{name}: {error}")
    for group_name, group in settings.reuse.items():
        for index, entry in enumerate(group.arms):
            where = f"reuse.{group_name}.arms.{index}"
            try:
                found = list(settings_of(entry))
            except (TypeError, ValueError) as error:
                problems.append(f"{where}: {error}")
                continue
            for model, task, drop_name, own in itertools.product(
                group.models, group.tasks, group.drops, found
            ):
                setting = own | {"drop": _drop(settings, drop_name)}
                _add(arms, ReuseArm(model, task, entry.strategy, setting, group.timing))
    if problems:
        raise SettingsError(
            "the configuration has impossible reuse arms:\n  " + "\n  ".join(problems)
        )
    for arm in list(arms.values()):
        _add(arms, reference(arm))
    return [arms[path] for path in sorted(arms)]


def reference(arm: ReuseArm) -> ReuseArm:
    """The full prefill of an arm's model and task, with nothing dropped."""
    return ReuseArm(arm.model, arm.task, REFERENCE, {"check_layer": 0, "drop": KEEP_ALL}, arm.timed)


def _drop(settings: Settings, name: str) -> str | dict[str, Any]:
    return KEEP_ALL if name == KEEP_ALL else {"name": name, **settings.drops[name].model_dump()}


def _add(arms: dict[str, ReuseArm], arm: ReuseArm) -> None:
    known = arms.get(arm.path)
    arms[arm.path] = replace(arm, timed=arm.timed or (known is not None and known.timed))


def settings_of(entry: ReuseArms) -> Iterator[dict[str, Any]]:
    """Every setting that one entry of a group spans.

    Raises:
        ValueError, TypeError: no such strategy or parameter, or a value it cannot have.
    """
    return spanned(PACKAGE, Strategy, "strategy", entry.strategy, entry.sweeps)
