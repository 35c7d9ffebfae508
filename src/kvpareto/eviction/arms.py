"""From the matrices in the configuration to single arms with stable ids.

An arm is model x text x policy x setting. Its setting is the dict of everything that defines it;
the setting id is `readable-hash8` of that dict, and the dict itself lies beside every result.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kvpareto.eviction.autocap import BudgetError, build_policy
from kvpareto.eviction.policy import EvictionPolicy, hyper_parameters, policy_class
from kvpareto.eviction.trajectory import Trajectory, simulate
from kvpareto.eviction_settings import Arms, CapOn
from kvpareto.methods import readable_id
from kvpareto.settings import Settings, SettingsError

YARDSTICK = "start_recent"
"""The policy every other one is compared with, strict and at the same cap."""

_SIMULATED_STEPS = 2048


@dataclass(frozen=True)
class Arm:
    """One eviction arm.

    Attributes:
        setting: cap, cap_on, window (cap_on none only) and the policy's parameters.
        timed: whether a group of the study wants its time; no part of what the arm is.
    """

    model: str
    text: str
    policy: str
    setting: dict[str, Any]
    timed: bool = field(default=True, compare=False)

    @property
    def setting_id(self) -> str:
        return setting_id(self.policy, self.setting)

    @property
    def path(self) -> str:
        """The arm's place below `results/eviction/`."""
        return f"{self.model}/{self.text}/{self.policy}/{self.setting_id}"

    @property
    def cap(self) -> int | None:
        return self.setting["cap"]  # type: ignore[no-any-return]

    @property
    def cap_on(self) -> CapOn | None:
        return self.setting["cap_on"]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Batch:
    """Arms of one model, text and policy, whose quality one job measures.

    Attributes:
        number: 1, 2, ... within the policy.
    """

    model: str
    text: str
    policy: str
    number: int
    arms: tuple[Arm, ...]

    @property
    def name(self) -> str:
        """A name for the job: letters, digits and underscores."""
        parts = ("evict_quality", self.model, self.text, self.policy, str(self.number))
        return re.sub(r"\W", "_", "_".join(parts))

    @property
    def paths(self) -> list[str]:
        """The arms' places below `results/eviction/`."""
        return [arm.path for arm in self.arms]


def batches(arms: Iterable[Arm], most: int) -> list[Batch]:
    """The arms by model, text and policy, at most `most` of them together."""
    by_policy: dict[tuple[str, str, str], list[Arm]] = {}
    for arm in arms:
        by_policy.setdefault((arm.model, arm.text, arm.policy), []).append(arm)
    return [
        Batch(*key, number, tuple(same[start : start + most]))
        for key, same in by_policy.items()
        for number, start in enumerate(range(0, len(same), most), start=1)
    ]


def policy_of(name: str, setting: dict[str, Any]) -> EvictionPolicy:
    """The policy that a setting describes."""
    own = {key: value for key, value in setting.items() if key not in ("cap", "cap_on", "window")}
    return build_policy(name, setting["cap"], setting["cap_on"], own, setting.get("window"))


def setting_id(policy: str, setting: dict[str, Any]) -> str:
    """For example `cap512-peak-S4-R64-1f3a9c2e`; equal settings have equal ids, always."""
    kind = policy_class(policy)
    known = [key for key in hyper_parameters(kind) if key in setting]
    rest = sorted(setting.keys() - {"cap", "cap_on", *known})
    budget = [] if setting["cap"] is None else ["cap", "cap_on"]
    return readable_id(setting, [*budget, *known, *rest], kind.symbols)


def yardstick(arm: Arm, settings: Settings) -> Arm:
    """Strict start_recent at the arm's cap: what its quality is held against.

    The cap means the same to both where it can. An arm without a cap is compared at the largest
    one; recompute, `full` and cap_on none with the sources' meaning, post_prune.
    """
    cap = arm.cap or max(caps_of(settings, arm.model, arm.text))
    peak = arm.cap_on == "peak" and arm.policy != "recompute"
    return _strict(arm, cap, "peak" if peak else "post_prune", settings)


def timing_yardstick(arm: Arm, settings: Settings) -> Arm:
    """The one strict arm per cap that every timing at that cap is paired with."""
    return _strict(arm, yardstick(arm, settings).setting["cap"], "post_prune", settings)


def _strict(arm: Arm, cap: int, cap_on: CapOn, settings: Settings) -> Arm:
    setting = {"cap": cap, "cap_on": cap_on, "sinks": settings.timing.yardstick_sinks}
    return Arm(arm.model, arm.text, YARDSTICK, setting)


def baseline(model: str, text: str, cap: int) -> Arm:
    """The recompute arm at a cap."""
    return Arm(model, text, "recompute", {"cap": cap, "cap_on": "peak"})


def caps_of(settings: Settings, model: str, text: str) -> list[int]:
    """All caps at which a model meets a text in the study, ascending."""
    caps = {
        cap
        for group in settings.eviction.values()
        if model in group.models and text in group.texts
        for cap in group.caps
    }
    return sorted(caps)


def score_from(settings: Settings) -> int:
    """Index of the first scored token, one for all arms of a study: its largest cap."""
    return max((cap for group in settings.eviction.values() for cap in group.caps), default=0)


def study_arms(settings: Settings) -> list[Arm]:
    """All eviction arms of a study, each once, in a stable order.

    Every arm's references (recompute and the yardstick, at its cap) are part of the study whether
    a group names them or not.

    Raises:
        SettingsError: every arm that is not possible, each with its path and what to do.
    """
    arms: dict[str, Arm] = {}
    problems: list[str] = []
    for group_name, group in settings.eviction.items():
        for index, entry in enumerate(group.arms):
            where = f"eviction.{group_name}.arms.{index}"
            try:
                found = list(_settings_of(entry, group.caps, group.cap_on))
            except BudgetError as error:
                problems.append(f"{where}: {error}")
                continue
            problems += [f"{where}: {said}" for setting in found for said in _wrong(entry, setting)]
            for model, text, setting in itertools.product(group.models, group.texts, found):
                _add(arms, Arm(model, text, entry.policy, setting, group.timing))
    if problems:
        raise SettingsError("the configuration has impossible arms:\n  " + "\n  ".join(problems))
    for arm in list(arms.values()):
        base = baseline(arm.model, arm.text, yardstick(arm, settings).setting["cap"])
        for needed in (base, yardstick(base, settings), yardstick(arm, settings)):
            if needed.path in arms and arms[needed.path].timed >= arm.timed:
                continue
            try:
                check(needed.policy, needed.setting)
            except BudgetError as error:
                raise SettingsError(f"timing.yardstick_sinks or the cap: {error}") from None
            _add(arms, replace(needed, timed=arm.timed))
    return [arms[path] for path in sorted(arms)]


def _add(arms: dict[str, Arm], arm: Arm) -> None:
    """Add an arm, which is timed if any group wants it."""
    known = arms.get(arm.path)
    arms[arm.path] = replace(arm, timed=arm.timed or (known is not None and known.timed))


def _settings_of(
    entry: Arms, caps: list[int], group_cap_on: list[CapOn]
) -> Iterator[dict[str, Any]]:
    """Every setting that one entry of a group spans."""
    try:
        kind = policy_class(entry.policy)
    except KeyError:
        raise BudgetError(
            f"no policy {entry.policy!r}; each file in src/kvpareto/eviction/policies is one"
        ) from None
    sweeps = entry.sweeps
    for key, values in sweeps.items():
        if not isinstance(values, list) or not values:
            raise BudgetError(f"{key} must be a non-empty list, not {values!r}: write [{values}]")
    defaults = {name: field.default for name, field in hyper_parameters(kind).items()}
    names = [*defaults, *(key for key in sweeps if key not in defaults)]
    choices = [sweeps.get(name, [defaults.get(name)]) for name in names]
    budgets: list[tuple[int | None, CapOn | None]] = [(None, None)]
    if kind.budgets:
        modes = [mode for mode in entry.cap_on or group_cap_on if mode in kind.budgets]
        budgets = list(itertools.product(caps, modes or kind.budgets[:1]))
    for (cap, cap_on), values in itertools.product(budgets, itertools.product(*choices)):
        yield {"cap": cap, "cap_on": cap_on, **dict(zip(names, values, strict=True))}


def _wrong(entry: Arms, setting: dict[str, Any]) -> list[str]:
    try:
        check(entry.policy, setting)
    except BudgetError as error:
        return [str(error)]
    return []


def check(policy: str, setting: dict[str, Any]) -> Trajectory:
    """Simulate a setting and hold it against its own cap.

    Raises:
        BudgetError: it cannot be built, or it breaks its cap; with the numbers.
    """
    built = policy_of(policy, setting)
    try:
        trajectory = simulate(built, prefill_length(built, setting["cap"] or 1), _SIMULATED_STEPS)
    except (TypeError, ValueError) as error:
        raise BudgetError(f"{policy} with {setting}: {error}") from None
    reached = {
        "post_prune": trajectory.post_prune,
        "peak": trajectory.peak_attended,
    }.get(setting["cap_on"])
    if reached is not None and reached > setting["cap"]:
        raise BudgetError(
            f"{policy} with {setting} reaches {reached} entries {setting['cap_on']}, over its cap "
            f"of {setting['cap']}"
        )
    return trajectory


def prefill_length(policy: EvictionPolicy, score_start: int) -> int:
    """Tokens of a stream that are prefilled at once: as many as the policy keeps after a prune."""
    return min(policy.capacity, score_start) if policy.budgets else score_start
