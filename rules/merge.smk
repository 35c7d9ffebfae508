# Merge of chunks that were attended to one by one: quality, memory, probes of deletion, table,
# figures.


# A rule for each offset method: editing one re-runs only its arms.
for batch in MERGE_BATCHES:

    rule:
        name:
            f"merge_quality_{batch.offset}"
        input:
            [
                [
                    *items_of(model, batch.tasks(model)),
                    *entries_of(model, batch.tasks(model)),
                    *(ids_file(model, text) for text in batch.texts(model)),
                    *files_of_model(model),
                ]
                for model in batch.models
            ],
        output:
            answers=expand("results/merge/{arm.path}/items.parquet", arm=batch.arms),
            settings=expand("results/merge/{arm.path}/setting.json", arm=batch.arms),
            summaries=expand("results/merge/{arm.path}/summary.json", arm=batch.arms),
            provenance=expand("results/merge/{arm.path}/provenance.json", arm=batch.arms),
        log:
            f"results/logs/merge_quality/{batch.offset}.log",
        conda:
            "../envs/kvpareto.yaml"
        threads: 1
        params:
            p=merge_quality_params(batch),
            code=code("merge_quality.py", *offset_modules(batch.offset)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/merge_quality.py"


rule merge_memory:
    input:
        model=model_files,
    output:
        memory="results/merge_memory/{model}/memory.parquet",
        provenance="results/merge_memory/{model}/provenance.json",
    log:
        "results/logs/merge_memory/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
    threads: 999
    params:
        p=merge_memory_params,
        code=code("merge_memory.py", *offset_modules(*merge_memory_offsets())),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_memory.py"


for probe in MERGE_PROBES:

    rule:
        name:
            probe
        input:
            task="results/items/{model}/{task}/items.json",
            entries="results/reuse/{model}/{task}/entries.parquet",
            model=model_files,
        output:
            rows=f"results/probes/{{model}}/{{task}}/{probe}.parquet",
            provenance=f"results/probes/{{model}}/{{task}}/{probe}.json",
        log:
            f"results/logs/{probe}/{{model}}/{{task}}.log",
        conda:
            "../envs/kvpareto.yaml"
        threads: 1
        params:
            p=merge_probe_params(probe),
            code=code("merge_probe.py", *merge_probe_modules(probe)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/merge_probe.py"


rule merge_table:
    input:
        answers=expand("results/merge/{arm}/items.parquet", arm=MERGE_ARM_OF),
        summaries=expand("results/merge/{arm}/summary.json", arm=MERGE_ARM_OF),
        memory=expand(
            "results/merge_memory/{model}/memory.parquet", model=SETTINGS.merge_memory.models
        ),
        provenance=rules.provenance_table.output.parquet,
    output:
        csv="results/tables/merge.csv",
        parquet="results/tables/merge.parquet",
        html=report(
            "results/tables/merge.html",
            caption="../workflow/report/merge_table.rst",
            category="Merge",
            labels={"table": "every offset"},
        ),
    log:
        "results/logs/merge_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=merge_table_params(),
        code=code("merge_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_table.py"


rule merge_noise:
    input:
        merge=rules.merge_table.output.parquet,
    output:
        report(
            "results/figures/merge_noise/{model}.svg",
            caption="../workflow/report/merge_noise.rst",
            category="Merge",
            labels={"figure": "score and fidelity against noise", "model": "{model}"},
        ),
    log:
        "results/logs/merge_noise/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("merge_noise.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_noise.py"


rule merge_mass:
    input:
        merge=rules.merge_table.output.parquet,
    output:
        report(
            "results/figures/merge_mass/{model}.svg",
            caption="../workflow/report/merge_mass.rst",
            category="Merge",
            labels={"figure": "attention to the answer against noise", "model": "{model}"},
        ),
    log:
        "results/logs/merge_mass/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("merge_mass.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_mass.py"


rule merge_text:
    input:
        merge=rules.merge_table.output.parquet,
    output:
        report(
            "results/figures/merge_text/{model}.svg",
            caption="../workflow/report/merge_text.rst",
            category="Merge",
            labels={"figure": "perplexity against chunks", "model": "{model}"},
        ),
    log:
        "results/logs/merge_text/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("merge_text.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_text.py"


rule merge_memory_figure:
    input:
        merge=rules.merge_table.output.parquet,
    output:
        report(
            "results/figures/merge_memory/{model}.svg",
            caption="../workflow/report/merge_memory.rst",
            category="Merge",
            labels={"figure": "memory and time against chunks", "model": "{model}"},
        ),
    log:
        "results/logs/merge_memory_figure/{model}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("merge_memory_figure.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_memory_figure.py"


rule merge_gate:
    output:
        report(
            "results/figures/merge_gate.svg",
            caption="../workflow/report/merge_gate.rst",
            category="Merge",
            labels={"figure": "every gate"},
        ),
    log:
        "results/logs/merge_gate.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"arms": gate_curve_arms(), "modules": gate_curve_modules()},
        code=code("merge_gate.py", *gate_curve_modules()),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/merge_gate.py"


rule merge_leaves:
    input:
        "results/tables/merge.csv",
        "results/figures/merge_gate.svg",
        expand(
            "results/figures/{figure}/{model}.svg",
            figure=["merge_noise", "merge_mass"],
            model=merge_figure_models(texts=False),
        ),
        expand("results/figures/merge_text/{model}.svg", model=merge_figure_models(texts=True)),
        expand("results/figures/merge_memory/{model}.svg", model=SETTINGS.merge_memory.models),
