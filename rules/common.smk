# The only file with functions: settings, arms, paths, and what the rules' params are made of.

import re
from functools import cache
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
from kvpareto.records import digest
from kvpareto.settings import SettingsError, is_local, parse_settings
from kvpareto.text.corpora import stdlib_sources

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


@cache
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
        "positions_per_document": (
            SETTINGS.baseline.positions_per_document if arm.policy == "recompute" else None
        ),
        "modules": run_modules(wildcards),
    }


def pairs():
    """All (model, text) that meet in the study."""
    return sorted({(arm.model, arm.text) for arm in ARMS})


def timed_on(text):
    """The text whose times stand for a text's: itself, if it is timed."""
    timed = SETTINGS.timing.texts or list(SETTINGS.texts)
    return text if text in timed else timed[0]


def timed_policies():
    """All (model, text, policy) with a timing job; recompute is timed by the baseline."""
    return sorted(
        {(arm.model, timed_on(arm.text), arm.policy) for arm in ARMS if arm.policy != "recompute"}
    )


def timed_arms():
    """Every arm, and the text that it is timed on."""
    return [
        {
            "model": arm.model,
            "text": arm.text,
            "policy": arm.policy,
            "setting": arm.setting_id,
            "timed_on": timed_on(arm.text),
        }
        for arm in ARMS
    ]


def timing_params(wildcards):
    """All settings of one policy, each with its yardstick's."""
    mine = {
        arm.setting_id: arm
        for arm in ARMS
        if (arm.model, timed_on(arm.text), arm.policy)
        == (wildcards.model, wildcards.text, wildcards.policy)
    }
    return {
        "policy": wildcards.policy,
        "arms": [
            {"setting": arm.setting, "yardstick": timing_yardstick(arm, SETTINGS).setting}
            for arm in mine.values()
        ],
        "model": model_settings(wildcards),
        "score_start": score_from(SETTINGS),
        "timing": SETTINGS.timing.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": timing_modules(wildcards),
    }


def baseline_arms(wildcards):
    """The recompute arms of a model and a text, ascending in cap."""
    return [
        baseline(wildcards.model, wildcards.text, cap)
        for cap in caps_of(SETTINGS, wildcards.model, wildcards.text)
    ]


def timed_caps(wildcards):
    """Caps at which recompute is timed on a text: those of all texts that borrow its times."""
    texts = [text for model, text in pairs() if model == wildcards.model]
    return sorted(
        {
            cap
            for text in texts
            if timed_on(text) == wildcards.text
            for cap in caps_of(SETTINGS, wildcards.model, text)
        }
    )


def baseline_time_params(wildcards):
    return {
        "caps": {
            cap: timing_yardstick(baseline(wildcards.model, wildcards.text, cap), SETTINGS).setting
            for cap in timed_caps(wildcards)
        },
        "runs": SETTINGS.baseline.runs,
        "tokens_per_run": SETTINGS.baseline.tokens_per_run,
        "model": model_settings(wildcards),
        "timing": SETTINGS.timing.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": policy_modules("start_recent"),
    }


def baselines():
    """The fixed baselines of all models and texts."""
    return [f"results/baselines/{model}-{text}_baseline_avg.json" for model, text in pairs()]


def arm_references():
    """Every arm's place, and those of the arms it is compared with."""
    rows = []
    for arm in ARMS:
        reference = yardstick(arm, SETTINGS)
        base = baseline(arm.model, arm.text, reference.cap)
        rows.append({"path": arm.path, "yardstick": reference.path, "baseline": base.path})
    return rows


def provenance_files():
    """Where every run, baseline and table but the last two says what it was made from."""
    folders = [
        *(f"results/text/{model}/{text}" for model, text in pairs()),
        *(f"results/eviction/{arm.path}" for arm in ARMS),
        *("results/timing/{}/{}/{}".format(*timed) for timed in timed_policies()),
        *sorted({f"results/baselines/{model}/{timed_on(text)}" for model, text in pairs()}),
    ]
    return [
        *(f"{folder}/provenance.json" for folder in folders),
        *(f"results/baselines/{model}-{text}.json" for model, text in pairs()),
        "results/tables/eviction.json",
        "results/tables/texts.json",
    ]


def text_sources(wildcards):
    """Digests of the modules that a text is made of: another Python is another text."""
    text = SETTINGS.texts[wildcards.text]
    if text.source != "stdlib":
        return []
    sources = stdlib_sources()
    return [digest(sources.get(name), length=16) for name in text.documents]


def figure_caps():
    """All (model, text, cap) with a Pareto figure."""
    return [(model, text, cap) for model, text in pairs() for cap in caps_of(SETTINGS, model, text)]
