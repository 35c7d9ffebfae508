# Reuse of precomputed chunks: items, store, parity gate, quality, time, tables.


rule task_items:
    input:
        model=model_files,
        data=task_files,
        prompts=lambda wildcards: f"config/prompts/{SETTINGS.tasks[wildcards.task].prompts}.yaml",
    output:
        task="results/items/{model}/{task}/items.json",
        provenance="results/items/{model}/{task}/provenance.json",
    log:
        "results/logs/task_items/{model}/{task}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=task_params,
        code=lambda wildcards: code("task_items.py", *task_modules(wildcards)),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/task_items.py"


rule precompute:
    input:
        task=rules.task_items.output.task,
        model=model_files,
    output:
        entries="results/reuse/{model}/{task}/entries.parquet",
        provenance="results/reuse/{model}/{task}/provenance.json",
    log:
        "results/logs/precompute/{model}/{task}.log",
    conda:
        "../envs/kvpareto.yaml"
    threads: 1
    params:
        p=store_params,
        code=code("precompute.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/precompute.py"


rule parity_gate:
    input:
        tasks=lambda wildcards: items_of(wildcards.model, tasks_of(wildcards.model)),
        entries=lambda wildcards: entries_of(wildcards.model, tasks_of(wildcards.model)),
        model=model_files,
    output:
        gate="results/reuse/{model}/gate.json",
        provenance="results/reuse/{model}/provenance.json",
    log:
        "results/logs/parity_gate/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    threads: 1
    params:
        p=gate_params,
        code=code("parity_gate.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/parity_gate.py"


# A rule for each strategy of a model, as for eviction policies.
for batch in REUSE_BATCHES:

    rule:
        name:
            batch.name
        input:
            tasks=items_of(batch.model, batch.tasks),
            entries=entries_of(batch.model, batch.tasks),
            gate=f"results/reuse/{batch.model}/gate.json",
            model=model_files(batch),
        output:
            answers=expand("results/reuse/{arm}/items.parquet", arm=batch.paths),
            settings=expand("results/reuse/{arm}/setting.json", arm=batch.paths),
            summaries=expand("results/reuse/{arm}/summary.json", arm=batch.paths),
            provenance=expand("results/reuse/{arm}/provenance.json", arm=batch.paths),
        log:
            f"results/logs/reuse_quality/{batch.name}.log",
        conda:
            "../envs/kvpareto.yaml"
        threads: 1
        params:
            p=reuse_quality_params(batch),
            code=code("reuse_quality.py", *strategy_modules(batch.arms)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/reuse_quality.py"


rule reuse_time:
    input:
        task=lambda wildcards: items_of(wildcards.model, [wildcards.task]),
        entries=lambda wildcards: entries_of(wildcards.model, [wildcards.task]),
        gate="results/reuse/{model}/gate.json",
        model=model_files,
    output:
        timing="results/reuse_timing/{model}/{task}/{strategy}/timing.parquet",
        provenance="results/reuse_timing/{model}/{task}/{strategy}/provenance.json",
    log:
        "results/logs/reuse_time/{model}/{task}/{strategy}.log",
    conda:
        "../envs/kvpareto.yaml"
    # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
    threads: 999
    params:
        p=reuse_time_params,
        code=lambda wildcards: code(
            "reuse_time.py", f"kvpareto.reuse.selection.{wildcards.strategy}"
        ),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/reuse_time.py"


rule reuse_depth:
    output:
        timing="results/reuse_timing/{depth}/timing.parquet",
        provenance="results/reuse_timing/{depth}/provenance.json",
    log:
        "results/logs/reuse_depth/{depth}.log",
    wildcard_constraints:
        depth="|".join(map(re.escape, SETTINGS.reuse_timing.depths)) or "none",
    conda:
        "../envs/kvpareto.yaml"
    threads: 999
    params:
        p=depth_params,
        code=lambda wildcards: code("reuse_depth.py", *depth_modules(wildcards)),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/reuse_depth.py"


rule store_table:
    input:
        entries=[f"results/reuse/{model}/{task}/entries.parquet" for model, task in stored_pairs()],
    output:
        csv="results/tables/store.csv",
        parquet="results/tables/store.parquet",
        provenance="results/tables/store.json",
        html=report(
            "results/tables/store.html",
            caption="../workflow/report/store_table.rst",
            category="Reuse",
            subcategory="Tables",
            labels={"table": "chunk store"},
        ),
    log:
        "results/logs/store_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"pairs": stored_pairs()},
        code=code("store_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/store_table.py"


rule reuse_table:
    input:
        answers=expand("results/reuse/{arm}/items.parquet", arm=REUSE_ARM_OF),
        summaries=expand("results/reuse/{arm}/summary.json", arm=REUSE_ARM_OF),
        timing=["results/reuse_timing/{}/{}/{}/timing.parquet".format(*t) for t in reuse_timed()],
        depths=expand(
            "results/reuse_timing/{depth}/timing.parquet", depth=SETTINGS.reuse_timing.depths
        ),
        store=rules.store_table.output.parquet,
        provenance=rules.provenance_table.output.parquet,
    output:
        csv="results/tables/reuse.csv",
        parquet="results/tables/reuse.parquet",
        html=report(
            "results/tables/reuse.html",
            caption="../workflow/report/reuse_table.rst",
            category="Reuse",
            subcategory="Tables",
            labels={"table": "every strategy"},
        ),
    log:
        "results/logs/reuse_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=reuse_table_params(),
        code=code("reuse_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/reuse_table.py"
