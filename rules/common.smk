# The only file with functions: settings, arms, paths, and what the rules' params are made of.

import re
from functools import cache
from pathlib import Path

from kvpareto.claims import comparisons
from kvpareto.eviction.arms import (
    baseline,
    batches,
    score_from,
    study_arms,
    timing_yardstick,
    yardstick,
)
from kvpareto.measure import probes
from kvpareto.provenance import codehash, environment
from kvpareto.records import digest
from kvpareto.report.merged import MATCHED
from kvpareto.settings import SettingsError, is_local, parse_settings
from kvpareto.text.corpora import stdlib_sources

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
POLICIES = "kvpareto.eviction.policies"

try:
    SETTINGS = parse_settings(config)
    ARMS = study_arms(SETTINGS)
    BATCHES = batches(ARMS, SETTINGS.quality.settings_per_job)
except SettingsError as error:
    raise WorkflowError(str(error))

ARM_OF = {arm.path: arm for arm in ARMS}
PROBES = sorted(
    path.stem for path in Path(probes.__file__).parent.glob("*.py") if path.stem != "__init__"
)
COMPARISONS = sorted(
    path.stem for path in Path(comparisons.__file__).parent.glob("*.py") if path.stem != "__init__"
)
ENVIRONMENT = environment()
TRACED_PERIODS = (16, 64, 128)


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


def quality_params(batch):
    """What a quality run needs to know of its arms."""
    return {
        "arms": [
            {
                "model": arm.model,
                "text": arm.text,
                "policy": arm.policy,
                "setting": arm.setting,
            }
            for arm in batch.arms
        ],
        "model": model_settings(batch),
        "score_start": score_from(SETTINGS),
        "positions_per_document": (
            SETTINGS.baseline.positions_per_document if batch.policy == "recompute" else None
        ),
        "modules": policy_modules(batch.policy),
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
        {
            (arm.model, timed_on(arm.text), arm.policy)
            for arm in ARMS
            if arm.timed and arm.policy != "recompute"
        }
    )


def memory_files():
    """The memory of every timed policy, and of recompute."""
    return [
        *("results/timing/{}/{}/{}/memory.parquet".format(*timed) for timed in timed_policies()),
        *(f"results/baselines/{model}/{text}/memory.parquet" for model, text in probed()),
    ]


def timed_arms():
    """Every arm that is timed, and the text that it is timed on."""
    return [
        {
            "model": arm.model,
            "text": arm.text,
            "policy": arm.policy,
            "setting": arm.setting_id,
            "timed_on": timed_on(arm.text),
        }
        for arm in ARMS
        if arm.timed
    ]


def timing_params(wildcards):
    """All settings of one policy, each with its yardstick's."""
    mine = {
        arm.setting_id: arm
        for arm in ARMS
        if arm.timed
        and (arm.model, timed_on(arm.text), arm.policy)
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
        "memory": memory_arms(wildcards.model, wildcards.text, wildcards.policy),
        "timing": SETTINGS.timing.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": timing_modules(wildcards),
    }


def timed_caps(model, text):
    """Caps at which arms on a text are timed, ascending."""
    return sorted(
        {
            arm.cap
            for arm in ARMS
            if arm.timed and arm.cap is not None and (arm.model, arm.text) == (model, text)
        }
    )


def baseline_arms(wildcards):
    """The recompute arms of a model and a text at the timed caps, ascending."""
    return [
        baseline(wildcards.model, wildcards.text, cap)
        for cap in timed_caps(wildcards.model, wildcards.text)
    ]


def baseline_caps(wildcards):
    """Caps at which recompute is timed on a text: those of all texts that borrow its times."""
    borrowers = [
        text
        for model, text in pairs()
        if model == wildcards.model and timed_on(text) == wildcards.text
    ]
    return sorted({cap for text in borrowers for cap in timed_caps(wildcards.model, text)})


def baseline_time_params(wildcards):
    return {
        "caps": {
            cap: timing_yardstick(baseline(wildcards.model, wildcards.text, cap), SETTINGS).setting
            for cap in baseline_caps(wildcards)
        },
        "runs": SETTINGS.baseline.runs,
        "tokens_per_run": SETTINGS.baseline.tokens_per_run,
        "model": model_settings(wildcards),
        "memory": memory_arms(wildcards.model, wildcards.text, "recompute"),
        "timing": SETTINGS.timing.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": policy_modules("start_recent", "recompute"),
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
    """Where every run, baseline, probe and table says what it was made from.

    All but what is made from the timing table, which reads this one: no job may have run beside a
    timing job.
    """
    folders = [
        *(f"results/text/{model}/{text}" for model, text in pairs()),
        *(f"results/eviction/{arm.path}" for arm in ARMS),
        *("results/timing/{}/{}/{}".format(*timed) for timed in timed_policies()),
        *sorted({f"results/baselines/{model}/{timed_on(text)}" for model, text in pairs()}),
    ]
    return [
        *(f"{folder}/provenance.json" for folder in folders),
        *(f"results/baselines/{model}-{text}.json" for model, text in pairs()),
        *(
            f"results/probes/{model}/{text}/{name}.json"
            for name in PROBES
            for model, text in probed()
        ),
        *(f"results/tables/{name}.json" for name in ("eviction", "memory", "spikes", "texts")),
    ]


def text_sources(wildcards):
    """Digests of the modules that a text is made of: another Python is another text."""
    text = SETTINGS.texts[wildcards.text]
    if text.source != "stdlib":
        return []
    sources = stdlib_sources()
    return [digest(sources.get(name), length=16) for name in text.documents]


def probed():
    """All (model, text) that the probes run on: one text a model, since they are about time."""
    return sorted({(model, timed_on(text)) for model, text in pairs()})


def probe_modules(probe):
    """Modules that a probe loads by name, its own first."""
    policies = ["static_cache"] if probe == "static_cache" else []
    return [f"kvpareto.measure.probes.{probe}", *policy_modules(*policies)]


def probe_params(probe):
    """Params function of a probe's rule."""

    def params(wildcards):
        settings = SETTINGS.probes.model_dump()
        settings["cap"] = settings["cap"] or probe_cap(wildcards)
        return {
            "probe": probe,
            "modules": probe_modules(probe),
            "model": model_settings(wildcards),
            "options": settings | {"confidence": SETTINGS.statistics.confidence},
            "threads": SETTINGS.timing.threads,
        }

    return params


def probe_cap(wildcards):
    """The cap of the probes: the largest one."""
    return SETTINGS.probes.cap or max(timed_caps(wildcards.model, wildcards.text))


def memory_arms(model, text, policy):
    """What the memory table shows of a policy: its first timed arm at the probes' cap.

    Strict streaming is shown in every layout, and in caches that grow by concatenation.
    """
    cap = SETTINGS.probes.cap or max(timed_caps(model, text))
    arms = [
        arm
        for arm in ARMS
        if (arm.model, arm.text, arm.policy) == (model, text, policy)
        and arm.timed
        and arm.cap in (None, cap)
    ]
    ways = [("compact", False)]
    if policy == "start_recent":
        ways += [("compact", True), ("soft_ring", False), ("ring", False)]
        ways += [("dynamic", False), ("converted", False)]
    return [
        {"policy": policy, "setting": arm.setting, "layout": layout, "staging": staging}
        for arm in arms[:1]
        for layout, staging in ways
    ]


def figure_caps():
    """All (model, text, cap) with a Pareto figure."""
    return [(model, text, cap) for model, text in pairs() for cap in timed_caps(model, text)]


def swept(arms, group, value):
    """All (model, text) on which `value` differs among the arms of one `group`."""
    values = {}
    for arm in arms:
        values.setdefault((arm.model, arm.text, *group(arm)), set()).add(value(arm))
    return sorted({key[:2] for key, own in values.items() if len(own) > 1})


def budget_pairs():
    """All (model, text) with a policy at several budgets."""
    arms = [arm for arm in ARMS if arm.cap_on == "peak" and arm.policy != "recompute"]
    return swept(arms, lambda arm: (arm.policy,), lambda arm: arm.cap)


def sink_pairs():
    """All (model, text) with strict streaming at several numbers of sinks."""
    arms = [arm for arm in ARMS if arm.policy == "start_recent"]
    return swept(arms, lambda arm: (arm.cap, arm.cap_on), lambda arm: arm.setting["sinks"])


def traced_arms(model, text):
    """The lazy arms whose loss is shown token by token: at the largest cap, by period."""
    lazy = [arm for arm in ARMS if (arm.model, arm.text, arm.policy) == (model, text, "lazy")]
    largest = max((arm.cap for arm in lazy), default=None)
    wanted = {
        "cap": largest,
        "cap_on": "post_prune",
        "sinks": SETTINGS.timing.yardstick_sinks,
        "trigger": "overflow",
    }
    shown = [arm for arm in lazy if wanted.items() <= arm.setting.items()]
    return sorted(
        (arm for arm in shown if arm.setting["period"] in TRACED_PERIODS),
        key=lambda arm: arm.setting["period"],
    )


def trace_tokens(wildcards):
    """Token tables of the traced arms."""
    arms = traced_arms(wildcards.model, wildcards.text)
    return [f"results/eviction/{arm.path}/tokens.parquet" for arm in arms]


def trace_reference(wildcards):
    """Token table of strict streaming beside the traced arms."""
    first = traced_arms(wildcards.model, wildcards.text)[0]
    return f"results/eviction/{yardstick(first, SETTINGS).path}/tokens.parquet"


def trace_params(wildcards):
    arms = traced_arms(wildcards.model, wildcards.text)
    return {
        "names": [f"lazy R{arm.setting['period']}, cap {arm.cap}" for arm in arms],
        "stretch": {"document": 0, "length": 600},
    }
