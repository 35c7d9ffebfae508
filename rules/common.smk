# The only file with functions: settings, arms, paths, and what the rules' params are made of.

import re
from functools import cache
from pathlib import Path

from kvpareto.claims import comparisons
from kvpareto.engine.arms import age_arms, compared, decode_runs
from kvpareto.engine.engine import PACKAGE as ENGINES
from kvpareto.eviction.arms import (
    baseline,
    batches,
    score_from,
    study_arms,
    timing_yardstick,
    yardstick,
)
from kvpareto.measure import probes
from kvpareto.merge import probes as merge_probes
from kvpareto.merge.arms import CONTEXT, merge_arms, merge_batches
from kvpareto.merge.arms import settings_of as merge_settings_of
from kvpareto.provenance import codehash, environment
from kvpareto.records import digest
from kvpareto.report.merged import MATCHED
from kvpareto.model_settings import is_local
from kvpareto.reuse.arms import KEEP_ALL, reuse_arms, reuse_batches
from kvpareto.reuse.arms import settings_of as reuse_settings_of
from kvpareto.settings import SettingsError, parse_settings
from kvpareto.text.corpora import stdlib_sources

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
POLICIES = "kvpareto.eviction.policies"

try:
    SETTINGS = parse_settings(config)
    ARMS = study_arms(SETTINGS)
    BATCHES = batches(ARMS, SETTINGS.quality.settings_per_job)
    REUSE_ARMS = reuse_arms(SETTINGS)
    REUSE_BATCHES = reuse_batches(REUSE_ARMS)
    MERGE_ARMS = merge_arms(SETTINGS)
    MERGE_BATCHES = merge_batches(MERGE_ARMS)
    DECODE_RUNS = decode_runs(SETTINGS)
    AGE_ARMS = age_arms(SETTINGS)
except SettingsError as error:
    raise WorkflowError(str(error))

ARM_OF = {arm.path: arm for arm in ARMS}
REUSE_ARM_OF = {arm.path: arm for arm in REUSE_ARMS}
MERGE_ARM_OF = {arm.path: arm for arm in MERGE_ARMS}
# A part of the study without groups has no tables and no figures.
EVICTION_TABLES = ("eviction", "timing", "spikes", "memory") if ARMS else ()
REUSE_TABLES = ("reuse",) if REUSE_ARMS else ()
MERGE_TABLES = ("merge",) if MERGE_ARMS else ()
COMPARED_RUNS = compared(DECODE_RUNS, SETTINGS.decode.shapes)
DECODE_TABLES = (
    *(["decode"] if DECODE_RUNS else []),
    *(["decode_age"] if SETTINGS.decode.age.shapes else []),
)
ATTENTION_TABLES = ("attention",) if SETTINGS.attention else ()
PROBE_TABLES = ("probes",) if ARMS or SETTINGS.merge_probes.models else ()
PROBES, COMPARISONS, MERGE_PROBES = (
    sorted(path.stem for path in Path(package.__path__[0]).glob("[a-z]*.py"))
    for package in (probes, comparisons, merge_probes)
)
ENVIRONMENT = environment()
TRACED_PERIODS = (16, 64, 128)
CONVERTED_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
UNTIMED = ("oracle", "random")  # an oracle knows the truth already; random is a control of quality


wildcard_constraints:
    shape="|".join(map(re.escape, SETTINGS.decode.shapes)) or "none",
    model="|".join(map(re.escape, {**SETTINGS.models, **SETTINGS.reference})),
    text="|".join(map(re.escape, SETTINGS.texts)),
    task="|".join(map(re.escape, SETTINGS.tasks)) or "none",
    strategy="[a-z][a-z0-9_]*",
    policy="[a-z][a-z0-9_]*",
    setting="[A-Za-z0-9.-]+",


@cache
def code(script, *modules):
    """Hash of a script and of everything it imports; `modules` are resolved by name at run time."""
    return codehash(SCRIPTS / script, *modules)


def policy_modules(*policies):
    """Module names of policies, each once."""
    return sorted({f"{POLICIES}.{policy}" for policy in policies})


def episode_modules(wildcards):
    """The families of episodes that a reference model is trained on, loaded by name."""
    families = SETTINGS.reference[wildcards.model].episodes.families
    return sorted(f"kvpareto.text.tasks.{family}" for family in families)


def card_modules(wildcards):
    """What measuring a reference model loads by name."""
    return [*policy_modules("start_recent"), *episode_modules(wildcards)]


def timing_modules(wildcards):
    """The policy that a timing run imports by name, and the yardstick."""
    return policy_modules(wildcards.policy, "start_recent")


def model_files(wildcards):
    return files_of_model(wildcards.model)


def files_of_model(model):
    """Files of a local model; none for a model of the hub."""
    settings = SETTINGS.models[model]
    if settings.converted is not None:
        return [f"{settings.path}/{name}" for name in CONVERTED_FILES]
    return local_files(model)


def local_files(name):
    """Files of a local model that lies there."""
    path = SETTINGS.models[name].path
    if not is_local(path):
        return []
    files = sorted(Path(path).glob("*")) if Path(path).is_dir() else []
    if not any(file.name == "config.json" for file in files):
        raise WorkflowError(
            f"models.{name}.path: there is no model in {path}; "
            f"restore it (git checkout -- {path}) or correct the path"
        )
    return [str(file) for file in files]


def conversion_params(wildcards):
    """What a converted model is made of."""
    made = SETTINGS.models[wildcards.model].converted
    return {"family": made.family, "source": SETTINGS.models[made.source].path}


def ids_of(wildcards):
    return ids_file(wildcards.model, wildcards.text)


def ids_file(model, text):
    """Token ids of a text under a model."""
    return f"results/text/{model}/{text}/ids.safetensors"


def model_settings(wildcards):
    return SETTINGS.models[wildcards.model].model_dump()


def document_tokens(text):
    """Tokens of each document: those that are scored, behind the largest cap on the text."""
    caps = [run.cap for run in DECODE_RUNS if SETTINGS.decode.shapes[run.shape].text == text]
    return max([score_from(SETTINGS), *caps]) + SETTINGS.texts[text].tokens


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


def reuse_pairs():
    """All (model, task) that meet in the study."""
    return sorted({(arm.model, arm.task) for arm in REUSE_ARMS})


def stored_pairs():
    """All (model, task) whose chunks are in a store."""
    return sorted({*reuse_pairs(), *merge_pairs()})


def tasks_of(model):
    """The tasks of a model."""
    return [task for one, task in reuse_pairs() if one == model]


def items_of(model, tasks):
    """Item files of tasks under a model."""
    return [f"results/items/{model}/{task}/items.json" for task in tasks]


def entries_of(model, tasks):
    """Where it is written that the chunks of tasks are in the store."""
    return [f"results/reuse/{model}/{task}/entries.parquet" for task in tasks]


def task_modules(wildcards):
    """The family of episodes that a task loads by name."""
    task = SETTINGS.tasks[wildcards.task]
    return [f"kvpareto.text.tasks.{task.family}"] if task.source == "episodes" else []


def task_files(wildcards):
    """Local files of a task's data set."""
    path = Path(getattr(SETTINGS.tasks[wildcards.task], "path", ""))
    if path == Path("") or not path.exists():
        return []
    return (
        [str(path)] if path.is_file() else sorted(map(str, filter(Path.is_file, path.rglob("*"))))
    )


def task_params(wildcards):
    task = SETTINGS.tasks[wildcards.task]
    sources = stdlib_sources()
    return {
        "task": task.model_dump(),
        "model": model_settings(wildcards),
        "modules": task_modules(wildcards),
        "prompts": f"config/prompts/{task.prompts}.yaml",
        # Another Python is another haystack.
        "sources": [
            digest(sources.get(name), length=16) for name in getattr(task, "documents", [])
        ],
    }


def store_params(wildcards):
    return store_params_of(wildcards.model)


def store_params_of(model):
    """What opens a model and its chunk store."""
    return {
        "model": SETTINGS.models[model].model_dump(),
        "store": SETTINGS.store.model_dump(),
        "folder": f"results/store/{model}",
    }


def merge_pairs():
    """All (model, task) of the merge part, texts left out."""
    asked = {(arm.model, arm.task) for arm in MERGE_ARMS if not arm.is_text}
    probed = {
        (model, task)
        for model in SETTINGS.merge_probes.models
        for task in SETTINGS.merge_probes.tasks
    }
    return sorted(asked | probed)


def merge_texts():
    """All (model, text) of the merge part."""
    return sorted({(arm.model, arm.task) for arm in MERGE_ARMS if arm.is_text})


def offset_modules(*offsets):
    """Module names of offset methods, each once."""
    return sorted({f"kvpareto.merge.offsets.{offset}" for offset in offsets})


def merge_quality_params(batch):
    """What a job needs to know of its models and arms."""
    return {
        "models": {model: store_params_of(model) for model in batch.models},
        "tasks": {
            model: {task: items_of(model, [task])[0] for task in batch.tasks(model)}
            for model in batch.models
        },
        "texts": {
            model: {text: ids_file(model, text) for text in batch.texts(model)}
            for model in batch.models
        },
        "arms": [
            {
                "path": arm.path,
                "model": arm.model,
                "task": arm.task,
                "offset": arm.offset,
                "setting": arm.setting,
            }
            for arm in batch.arms
        ],
        "modules": offset_modules(batch.offset),
    }


def merge_memory_offsets():
    return [entry.offset for entry in SETTINGS.merge_memory.arms]


def merge_memory_params(wildcards):
    return {
        "model": model_settings(wildcards),
        "memory": SETTINGS.merge_memory.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": offset_modules(*merge_memory_offsets()),
    }


# The offsets that a probe loads by name.
MERGE_PROBE_OFFSETS = {
    "forgetting": ["zero", "energy_deficit", "hard_drop"],
    "head_conflict": ["hard_drop"],
    "single_chunk": ["energy_deficit", "zero"],
    "sink_collapse": ["zero"],
}


def merge_probe_params(probe):
    """Params function of a probe's rule."""

    def params(wildcards):
        return store_params(wildcards) | {
            "probe": f"kvpareto.merge.probes.{probe}",
            "settings": SETTINGS.merge_probes.model_dump(),
            "statistics": SETTINGS.statistics.model_dump(),
            "modules": merge_probe_modules(probe),
        }

    return params


def merge_probe_modules(probe):
    if probe not in MERGE_PROBE_OFFSETS:
        raise WorkflowError(
            f"rules/common.smk: MERGE_PROBE_OFFSETS does not say which offsets {probe} loads; add it"
        )
    return [f"kvpareto.merge.probes.{probe}", *offset_modules(*MERGE_PROBE_OFFSETS[probe])]


def merge_probe_files():
    """The rows of every probe of deletion."""
    return [
        f"results/probes/{model}/{task}/{probe}.parquet"
        for model in SETTINGS.merge_probes.models
        for task in SETTINGS.merge_probes.tasks
        for probe in MERGE_PROBES
    ]


def merge_table_params():
    return {
        "arms": [
            {
                "path": arm.path,
                "model": arm.model,
                "task": arm.task,
                "offset": arm.offset,
                "setting": arm.setting,
                "alias_of": source_model(arm.model),
            }
            for arm in MERGE_ARMS
        ],
        "memory": {
            model: f"results/merge_memory/{model}/memory.parquet"
            for model in SETTINGS.merge_memory.models
        },
        "statistics": SETTINGS.statistics.model_dump(),
    }


def gate_curve_arms():
    """Every offset method of the study, with its parameters."""
    return [
        {
            "offset": arm.offset,
            "parameters": {
                name: value for name, value in arm.setting.items() if name not in CONTEXT
            },
        }
        for arm in MERGE_ARMS
    ]


def gate_curve_modules():
    return offset_modules(*(batch.offset for batch in MERGE_BATCHES))


def merge_figure_models(texts):
    """Models with arms on texts, or on tasks, that are not the weights of another one."""
    return sorted(
        {arm.model for arm in MERGE_ARMS if arm.is_text == texts and not source_model(arm.model)}
    )


def gate_params(wildcards):
    return store_params(wildcards) | {
        "tasks": tasks_of(wildcards.model),
        "gate": SETTINGS.gate.model_dump(),
    }


def strategy_modules(arms):
    """Modules that reuse arms load by name: strategies and drops."""
    drops = {arm.setting["drop"]["method"] for arm in arms if arm.setting["drop"] != KEEP_ALL}
    return sorted(
        {f"kvpareto.reuse.selection.{arm.strategy}" for arm in arms}
        | {f"kvpareto.reuse.drops.{drop}" for drop in drops}
    )


def reuse_quality_params(batch):
    return store_params(batch) | {
        "tasks": batch.tasks,
        "arms": [
            {"model": arm.model, "task": arm.task, "strategy": arm.strategy, "setting": arm.setting}
            for arm in batch.arms
        ],
        "modules": strategy_modules(batch.arms),
    }


def reuse_timed_tasks(model):
    """The tasks that a model is timed on: the configured ones, or its first."""
    tasks = tasks_of(model)
    return [task for task in SETTINGS.reuse_timing.tasks if task in tasks] or tasks[:1]


def reuse_timed():
    """All (model, task, strategy) with a timing job."""
    return sorted(
        {
            (arm.model, task, arm.strategy)
            for arm in REUSE_ARMS
            if arm.timed and arm.drop == KEEP_ALL and arm.strategy not in UNTIMED
            for task in reuse_timed_tasks(arm.model)
        }
    )


def reuse_time_params(wildcards):
    """All settings of one strategy, whatever task they are asked for on."""
    mine = {
        arm.setting_id: {"strategy": arm.strategy, "setting": arm.setting}
        for arm in REUSE_ARMS
        if arm.timed
        and arm.drop == KEEP_ALL
        and (arm.model, arm.strategy) == (wildcards.model, wildcards.strategy)
    }
    return store_params(wildcards) | {
        "arms": [mine[name] for name in sorted(mine)],
        "timing": SETTINGS.reuse_timing.model_dump(exclude={"tasks", "depths"}),
        "confidence": SETTINGS.statistics.confidence,
        "modules": [f"kvpareto.reuse.selection.{wildcards.strategy}"],
    }


def depth_arms(wildcards):
    """The arms that a deep model is timed with."""
    entries = SETTINGS.reuse_timing.depths[wildcards.depth].arms
    return [
        {"strategy": entry.strategy, "setting": setting | {"drop": KEEP_ALL}}
        for entry in entries
        for setting in reuse_settings_of(entry)
    ]


def depth_modules(wildcards):
    return sorted({f"kvpareto.reuse.selection.{arm['strategy']}" for arm in depth_arms(wildcards)})


def depth_params(wildcards):
    return {
        "depth": SETTINGS.reuse_timing.depths[wildcards.depth].model_dump(),
        "folder": f"results/store/{wildcards.depth}",
        "arms": depth_arms(wildcards),
        "timing": SETTINGS.reuse_timing.model_dump(exclude={"tasks", "depths"}),
        "confidence": SETTINGS.statistics.confidence,
        "modules": depth_modules(wildcards),
    }


def source_model(model):
    """The model whose very weights a converted one has; empty for all others."""
    made = SETTINGS.models[model].converted
    return "" if made is None else made.source


def reuse_table_params():
    """Every arm with what it is compared with and timed by."""
    return {
        "arms": [
            {
                "path": arm.path,
                "model": arm.model,
                "task": arm.task,
                "strategy": arm.strategy,
                "setting": arm.setting,
                "drop": arm.drop,
                "alias_of": source_model(arm.model),
            }
            for arm in REUSE_ARMS
        ],
        "timing": [
            {"model": model, "task": task, "strategy": strategy}
            for model, task, strategy in reuse_timed()
        ],
        "depths": list(SETTINGS.reuse_timing.depths),
        "statistics": SETTINGS.statistics.model_dump(),
    }


def reuse_models():
    """Models of the reuse part that are not the weights of another one."""
    return sorted({m for m, _ in reuse_pairs() if SETTINGS.models[m].converted is None})


def varies(task):
    """Whether a task's grid varies what the robustness figure shows."""
    names = ("crossings", "orders", "gold_positions")
    return any(len(getattr(task, name, None) or []) > 1 for name in names)


def reuse_figure_pairs(figure):
    """All (model, task) with a figure of that kind."""
    wanted = {
        "needle_map": lambda task: getattr(task, "depths", None) is not None,
        "robustness": varies,
    }.get(figure, lambda task: True)
    return [
        (model, task)
        for model, task in reuse_pairs()
        if model in reuse_models() and wanted(SETTINGS.tasks[task])
    ]


def shown_arms(figure, wildcards):
    """The arms of a figure: with a ratio for `overlap`, else one setting of each strategy.

    Of several settings that with the highest check layer is taken, and in its sweep the middle one.
    """
    mine = [
        arm
        for arm in REUSE_ARMS
        if (arm.model, arm.task) == (wildcards.model, wildcards.task) and arm.drop == KEEP_ALL
    ]
    deepest = {}
    for arm in mine:
        layer = arm.setting["check_layer"]
        deepest[arm.strategy] = max(layer, deepest.get(arm.strategy, 0))
    mine = [arm for arm in mine if arm.setting["check_layer"] == deepest[arm.strategy]]
    if figure == "overlap":
        return [arm for arm in mine if "ratio" in arm.setting]
    if figure == "recomputed_tokens":
        mine = [arm for arm in mine if arm.strategy not in ("none", "full", "cat")]
    groups = {}
    for arm in sorted(
        mine, key=lambda arm: (arm.setting.get("ratio", 0), arm.setting.get("first", 0))
    ):
        groups.setdefault(arm.strategy, []).append(arm)
    return [group[len(group) // 2] for group in groups.values()]


def shown_answers(figure):
    """Input function: item tables of a figure's arms."""

    def files(wildcards):
        return [f"results/reuse/{arm.path}/items.parquet" for arm in shown_arms(figure, wildcards)]

    return files


def shown_params(figure):
    """Params function of a figure of one task."""

    def params(wildcards):
        return {
            "arms": [
                {
                    "strategy": arm.strategy,
                    "setting": arm.setting_id,
                    "ratio": arm.setting.get("ratio"),
                    "drop": arm.drop,
                }
                for arm in shown_arms(figure, wildcards)
            ],
            "model": model_settings(wildcards),
            "item": 0,
        }

    return params


def attention_settings():
    """Settings of the attention part; empty in a study without it."""
    return SETTINGS.attention.model_dump() if SETTINGS.attention else {}


def provenance_files():
    """Where every run, baseline, probe and table says what it was made from.

    All but what is made from the timing table, which reads this one: no job may have run beside a
    timing job.
    """
    folders = [
        *(f"results/text/{model}/{text}" for model, text in sorted({*pairs(), *merge_texts()})),
        *(f"results/eviction/{arm.path}" for arm in ARMS),
        *("results/timing/{}/{}/{}".format(*timed) for timed in timed_policies()),
        *sorted({f"results/baselines/{model}/{timed_on(text)}" for model, text in pairs()}),
        *(f"results/items/{model}/{task}" for model, task in stored_pairs()),
        *(f"results/reuse/{model}/{task}" for model, task in stored_pairs()),
        *sorted({f"results/reuse/{model}" for model, _ in reuse_pairs()}),
        *(f"results/reuse/{arm.path}" for arm in REUSE_ARMS),
        *("results/reuse_timing/{}/{}/{}".format(*timed) for timed in reuse_timed()),
        *(f"results/reuse_timing/{depth}" for depth in SETTINGS.reuse_timing.depths if REUSE_ARMS),
        *(f"results/merge/{arm.path}" for arm in MERGE_ARMS),
        *(f"results/merge_memory/{model}" for model in SETTINGS.merge_memory.models),
        *(f"results/decode/{run.path}" for run in DECODE_RUNS),
    ]
    return [
        *(f"{folder}/provenance.json" for folder in folders),
        *(f"results/baselines/{model}-{text}.json" for model, text in pairs()),
        *(
            f"results/probes/{model}/{text}/{name}.json"
            for name in PROBES
            for model, text in probed()
        ),
        *(
            f"results/tables/{name}.json"
            for name in ("eviction", "memory", "spikes", "store", "texts")
            if (stored_pairs() if name == "store" else ARMS)
        ),
        *(file.replace(".parquet", ".json") for file in merge_probe_files()),
        *(f"results/attention/{part}.json" for part in ("quality", "time") if SETTINGS.attention),
        *(f"results/decode/{run.place}/quality.json" for run in COMPARED_RUNS),
        *(
            f"results/decode/age/{shape}/{part}.json"
            for shape in SETTINGS.decode.age.shapes
            for part in ("times", "errors")
        ),
        *(["results/decode/drift.json"] if DECODE_RUNS else []),
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


def shape_files(shape):
    """Files of the model that a shape names; none for random weights."""
    model = SETTINGS.decode.shapes[shape].model
    return [] if model is None else files_of_model(model)


def shape_params(wildcards):
    """A shape, and the model that it names."""
    return params_of_shape(wildcards.shape)


def params_of_shape(shape):
    own = SETTINGS.decode.shapes[shape]
    model = None if own.model is None else SETTINGS.models[own.model].model_dump()
    return {"shape": own.model_dump(), "model": model}


def gguf_files(run):
    """The weights of a run as GGUF, by type."""
    return {kind: f"results/gguf/{run.shape}/{kind}.gguf" for kind in run.gguf}


def decode_files(run):
    """What a comparison of engines reads."""
    shape = SETTINGS.decode.shapes[run.shape]
    ids = [] if shape.model is None else [ids_file(shape.model, shape.text)]
    return {"ids": ids, "model": shape_files(run.shape), "gguf": [*gguf_files(run).values()]}


def engine_modules(run):
    """The engines that a comparison loads by name."""
    return [f"{ENGINES}.{name}" for name in run.engines]


def age_modules():
    """The engines whose age is measured."""
    return sorted({f"{ENGINES}.{name}" for name, _ in AGE_ARMS})


def age_files(shape):
    """What a stream of any age reads."""
    own = SETTINGS.decode.shapes[shape]
    return {"ids": ids_file(own.model, own.text), "model": shape_files(shape)}


def age_params(wildcards):
    return params_of_shape(wildcards.shape) | {
        "arms": [[name, parameters] for name, parameters in AGE_ARMS],
        "sinks": SETTINGS.decode.sinks,
        "age": SETTINGS.decode.age.model_dump(),
        "modules": age_modules(),
    }


def decode_params(run):
    """What a comparison of engines needs to know."""
    return params_of_shape(run.shape) | {
        "arms": [[name, parameters] for name, parameters in run.arms],
        "cap": run.cap,
        "sinks": SETTINGS.decode.sinks,
        "threads": run.threads,
        "gguf": gguf_files(run),
        "quality": SETTINGS.decode.quality.model_dump(),
        "timing": SETTINGS.decode.timing.model_dump(),
        "confidence": SETTINGS.statistics.confidence,
        "modules": engine_modules(run),
    }


def decoded():
    """All (group, shape) whose engines took turns."""
    return sorted({(run.group, run.shape) for run in DECODE_RUNS})


def decode_table_params():
    """Where each comparison of engines is, and what it is of."""
    return {
        "runs": [
            {
                "group": run.group,
                "shape": run.shape,
                "cap": run.cap,
                "threads": run.threads,
                "time": f"results/decode/{run.path}/time.parquet",
                "quality": (
                    f"results/decode/{run.place}/quality.parquet"
                    if SETTINGS.decode.shapes[run.shape].model is not None
                    else None
                ),
            }
            for run in DECODE_RUNS
        ]
    }
