# The only file with functions: settings, arms, paths, and what the rules' params are made of.

import re
from pathlib import Path

from kvpareto.eviction.arms import (
    baseline,
    caps_of,
    score_from,
    study_arms,
    timing_yardstick,
    yardstick,
)
from kvpareto.provenance import codehash, environment
from kvpareto.settings import SettingsError, is_local, parse_settings

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
POLICIES = "kvpareto.eviction.policies"

try:
    SETTINGS = parse_settings(config)
    ARMS = study_arms(SETTINGS)
except SettingsError as error:
    raise WorkflowError(str(error))

ARM_OF = {arm.path: arm for arm in ARMS}
ENVIRONMENT = environment()


wildcard_constraints:
    model="|".join(map(re.escape, {**SETTINGS.models, **SETTINGS.reference})),
    text="|".join(map(re.escape, SETTINGS.texts)),
    policy="[a-z][a-z0-9_]*",
    setting="[A-Za-z0-9.-]+",


def code(script, *modules):
    """Hash of a script and of everything it imports; `modules` are resolved by name at run time."""
    return codehash(SCRIPTS / script, *modules)


def policy_modules(*policies):
    """Module names of policies, each once."""
    return sorted({f"{POLICIES}.{policy}" for policy in policies})


def run_modules(wildcards):
    """The one policy that a quality run imports by name."""
    return policy_modules(wildcards.policy)


def timing_modules(wildcards):
    """The policy that a timing run imports by name, and the yardstick."""
    return policy_modules(wildcards.policy, "start_recent")


def model_files(wildcards):
    """Files of a local model; none for a model of the hub."""
    path = SETTINGS.models[wildcards.model].path
    if not is_local(path):
        return []
    files = sorted(Path(path).glob("*")) if Path(path).is_dir() else []
    if not any(file.name == "config.json" for file in files):
        raise WorkflowError(
            f"models.{wildcards.model}.path: there is no model in {path}; "
            f"restore it (git checkout -- {path}) or correct the path"
        )
    return [str(file) for file in files]


def ids_of(wildcards):
    """Token ids of a text under a model."""
    return f"results/text/{wildcards.model}/{wildcards.text}/ids.safetensors"


def model_settings(wildcards):
    return SETTINGS.models[wildcards.model].model_dump()


def scored_tokens(wildcards):
    return SETTINGS.texts[wildcards.text].tokens


def arm_params(wildcards):
    """What a quality run needs to know of its arm."""
    arm = ARM_OF[f"{wildcards.model}/{wildcards.text}/{wildcards.policy}/{wildcards.setting}"]
    return {
        "arm": {
            "model": arm.model,
            "text": arm.text,
            "policy": arm.policy,
            "setting": arm.setting,
        },
        "model": model_settings(wildcards),
        "score_start": score_from(SETTINGS),
        "positions_per_document": SETTINGS.baseline.positions_per_document,
        "modules": run_modules(wildcards),
    }


def pairs():
    """All (model, text) that meet in the study."""
    return sorted({(arm.model, arm.text) for arm in ARMS})


def timed_texts():
    return SETTINGS.timing.texts or list(SETTINGS.texts)


def timed_policies():
    """All (model, text, policy) with a timing job; recompute is timed by the baseline."""
    return sorted(
        {
            (arm.model, arm.text, arm.policy)
            for arm in ARMS
            if arm.text in timed_texts() and arm.policy != "recompute"
        }
    )


def timing_params(wildcards):
    """All settings of one policy, each with its yardstick's."""
    mine = [
        arm
        for arm in ARMS
        if (arm.model, arm.text, arm.policy) == (wildcards.model, wildcards.text, wildcards.policy)
    ]
    return {
        "policy": wildcards.policy,
        "arms": [
            {"setting": arm.setting, "yardstick": timing_yardstick(arm, SETTINGS).setting}
            for arm in mine
        ],
        "model": model_settings(wildcards),
        "score_start": score_from(SETTINGS),
        "timing": SETTINGS.timing.model_dump(),
        "statistics": SETTINGS.statistics.model_dump(),
        "modules": timing_modules(wildcards),
    }


def baseline_arms(wildcards):
    """The recompute arms of a model and a text, ascending in cap."""
    return [
        baseline(wildcards.model, wildcards.text, cap)
        for cap in caps_of(SETTINGS, wildcards.model, wildcards.text)
    ]


def baseline_time_params(wildcards):
    return {
        "caps": {
            arm.cap: timing_yardstick(arm, SETTINGS).setting for arm in baseline_arms(wildcards)
        },
        "runs": SETTINGS.baseline.runs,
        "tokens_per_run": SETTINGS.baseline.tokens_per_run,
        "model": model_settings(wildcards),
        "timing": SETTINGS.timing.model_dump(),
        "statistics": SETTINGS.statistics.model_dump(),
        "modules": policy_modules("start_recent"),
    }


def baselines():
    """The fixed baselines of all models and timed texts."""
    return [
        f"results/baselines/{model}-{text}_baseline_avg.json"
        for model, text in pairs()
        if text in timed_texts()
    ]


def arm_references():
    """Every arm's place, and those of the arms it is compared with."""
    rows = []
    for arm in ARMS:
        reference = yardstick(arm, SETTINGS)
        base = baseline(arm.model, arm.text, reference.cap)
        rows.append({"path": arm.path, "yardstick": reference.path, "baseline": base.path})
    return rows


def run_folders():
    """All folders with a provenance.json."""
    return [
        *(f"results/eviction/{arm.path}" for arm in ARMS),
        *("results/timing/{}/{}/{}".format(*timed) for timed in timed_policies()),
        *(f"results/baselines/{model}/{text}" for model, text in pairs() if text in timed_texts()),
    ]


def figure_caps():
    """All (model, text, cap) with a Pareto figure."""
    return [(model, text, cap) for model, text in pairs() for cap in caps_of(SETTINGS, model, text)]
