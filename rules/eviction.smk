# Streaming decode under a fixed budget: quality runs, exclusive timing runs, their tables.


# A rule for each batch of settings of one policy: importing torch and transformers takes longer than
# measuring a setting does.
for batch in BATCHES:

    rule:
        name:
            batch.name
        input:
            ids=f"results/text/{batch.model}/{batch.text}/ids.safetensors",
            model=model_files(batch),
        output:
            tokens=expand("results/eviction/{arm}/tokens.parquet", arm=batch.paths),
            events=expand("results/eviction/{arm}/prune_events.parquet", arm=batch.paths),
            settings=expand("results/eviction/{arm}/setting.json", arm=batch.paths),
            summaries=expand("results/eviction/{arm}/summary.json", arm=batch.paths),
            provenance=expand("results/eviction/{arm}/provenance.json", arm=batch.paths),
        log:
            f"results/logs/evict_quality/{batch.name}.log",
        conda:
            "../envs/kvpareto.yaml"
        threads: 1
        params:
            p=quality_params(batch),
            code=code("evict_quality.py", *policy_modules(batch.policy)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/evict_quality.py"


rule evict_time:
    input:
        ids=ids_of,
        model=model_files,
    output:
        timing="results/timing/{model}/{text}/{policy}/timing.parquet",
        tokens="results/timing/{model}/{text}/{policy}/tokens.parquet",
        memory="results/timing/{model}/{text}/{policy}/memory.parquet",
        provenance="results/timing/{model}/{text}/{policy}/provenance.json",
    log:
        "results/logs/evict_time/{model}/{text}/{policy}.log",
    conda:
        "../envs/kvpareto.yaml"
    # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
    threads: 999
    params:
        p=timing_params,
        code=lambda wildcards: code("evict_time.py", *timing_modules(wildcards)),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/evict_time.py"


rule eviction_table:
    input:
        tokens=expand("results/eviction/{arm}/tokens.parquet", arm=ARM_OF),
        summaries=expand("results/eviction/{arm}/summary.json", arm=ARM_OF),
    output:
        csv="results/tables/eviction.csv",
        parquet="results/tables/eviction.parquet",
        provenance="results/tables/eviction.json",
        html=report(
            "results/tables/eviction.html",
            caption="../workflow/report/eviction_table.rst",
            category="Eviction",
            subcategory="Tables",
            labels={"table": "quality of every arm"},
        ),
    log:
        "results/logs/eviction_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={
            "arms": arm_references(),
            "statistics": SETTINGS.statistics.model_dump(),
        },
        code=code("eviction_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/eviction_table.py"


rule timing_table:
    input:
        timing=["results/timing/{}/{}/{}/timing.parquet".format(*t) for t in timed_policies()],
        baselines=baselines(),
        provenance=rules.provenance_table.output.parquet,
    output:
        csv="results/tables/timing.csv",
        parquet="results/tables/timing.parquet",
        html=report(
            "results/tables/timing.html",
            caption="../workflow/report/timing_table.rst",
            category="Eviction",
            subcategory="Tables",
            labels={"table": "time per token of every arm"},
        ),
    log:
        "results/logs/timing_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={
            "runs": [
                {"model": model, "text": text, "policy": policy}
                for model, text, policy in timed_policies()
            ],
            "arms": timed_arms(),
        },
        code=code("timing_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/timing_table.py"
