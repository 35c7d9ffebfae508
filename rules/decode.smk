# The decode engine: how long a token takes, whether it is the right one, beside real peers.


rule gguf:
    input:
        lambda wildcards: shape_files(wildcards.shape),
    output:
        weights="results/gguf/{shape}/{kind}.gguf",
        provenance="results/gguf/{shape}/{kind}.json",
    log:
        "results/logs/gguf/{shape}/{kind}.log",
    wildcard_constraints:
        kind="f32|f16|bf16|q8_0",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=shape_params,
        code=code("gguf.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/gguf.py"


# A rule for each comparison: editing an engine re-runs only those that it is part of.
for run in COMPARED_RUNS:

    rule:
        name:
            f"decode_quality_{run.name}_{run.cap}"
        input:
            **decode_files(run),
        output:
            rows=f"results/decode/{run.place}/quality.parquet",
            provenance=f"results/decode/{run.place}/quality.json",
        log:
            f"results/logs/decode_quality/{run.place}.log",
        conda:
            "../envs/kvpareto.yaml"
        threads: 1
        params:
            p=decode_params(run),
            code=code("decode_quality.py", *engine_modules(run)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/decode_quality.py"


for run in DECODE_RUNS:

    rule:
        name:
            f"decode_time_{run.name}_{run.cap}_{run.threads}"
        input:
            **decode_files(run),
            # Compiled steps lie ready by then.
            compared=[f"results/decode/{run.place}/quality.parquet"] if run in COMPARED_RUNS else [],
        output:
            rows=f"results/decode/{run.path}/time.parquet",
            tokens=f"results/decode/{run.path}/tokens.parquet",
            provenance=f"results/decode/{run.path}/provenance.json",
        log:
            f"results/logs/decode_time/{run.path}.log",
        conda:
            "../envs/kvpareto.yaml"
        # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
        threads: 999
        params:
            p=decode_params(run),
            code=code("decode_time.py", *engine_modules(run)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/decode_time.py"


rule decode_table:
    input:
        time=[f"results/decode/{run.path}/time.parquet" for run in DECODE_RUNS],
        quality=[f"results/decode/{run.place}/quality.parquet" for run in COMPARED_RUNS],
    output:
        csv="results/tables/decode.csv",
        parquet="results/tables/decode.parquet",
        html=report(
            "results/tables/decode.html",
            caption="../workflow/report/decode_table.rst",
            category="Decode",
            subcategory="Tables",
            labels={"table": "every engine"},
        ),
    log:
        "results/logs/decode_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=decode_table_params(),
        code=code("decode_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/decode_table.py"


rule decode_bandwidth:
    input:
        decode=rules.decode_table.output.parquet,
    output:
        report(
            "results/figures/decode_bandwidth/{group}/{shape}.svg",
            caption="../workflow/report/decode_bandwidth.rst",
            category="Decode",
            subcategory="Figures",
            labels={
                "figure": "time against bandwidth",
                "group": "{group}",
                "shape": "{shape}",
            },
        ),
    log:
        "results/logs/decode_bandwidth/{group}/{shape}.log",
    wildcard_constraints:
        group="[a-z0-9][a-z0-9_]*",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("decode_bandwidth.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/decode_bandwidth.py"


rule decode_steps:
    input:
        decode=rules.decode_table.output.parquet,
    output:
        report(
            "results/figures/decode_steps/{group}/{shape}.svg",
            caption="../workflow/report/decode_steps.rst",
            category="Decode",
            subcategory="Figures",
            labels={
                "figure": "steps and speed-ups",
                "group": "{group}",
                "shape": "{shape}",
            },
        ),
    log:
        "results/logs/decode_steps/{group}/{shape}.log",
    wildcard_constraints:
        group="[a-z0-9][a-z0-9_]*",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("decode_steps.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/decode_steps.py"


rule age_times:
    input:
        unpack(lambda wildcards: age_files(wildcards.shape)),
    output:
        rows="results/decode/age/{shape}/times.parquet",
        provenance="results/decode/age/{shape}/times.json",
    log:
        "results/logs/age_times/{shape}.log",
    conda:
        "../envs/kvpareto.yaml"
    # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
    threads: 999
    params:
        p=age_params,
        code=code("age_times.py", *age_modules()),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/age_times.py"


rule age_errors:
    input:
        unpack(lambda wildcards: age_files(wildcards.shape)),
    output:
        rows="results/decode/age/{shape}/errors.parquet",
        provenance="results/decode/age/{shape}/errors.json",
    log:
        "results/logs/age_errors/{shape}.log",
    conda:
        "../envs/kvpareto.yaml"
    threads: 1
    params:
        p=age_params,
        code=code("age_errors.py", *age_modules()),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/age_errors.py"


rule decode_age_table:
    input:
        times=expand(rules.age_times.output.rows, shape=SETTINGS.decode.age.shapes),
        errors=expand(rules.age_errors.output.rows, shape=SETTINGS.decode.age.shapes),
    output:
        ages=expand("results/decode/age/{shape}/age.parquet", shape=SETTINGS.decode.age.shapes),
        csv="results/tables/decode_age.csv",
        parquet="results/tables/decode_age.parquet",
        html=report(
            "results/tables/decode_age.html",
            caption="../workflow/report/decode_age_table.rst",
            category="Decode",
            subcategory="Tables",
            labels={"table": "slopes over a stream's age"},
        ),
    log:
        "results/logs/decode_age_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={
            "shapes": SETTINGS.decode.age.shapes,
            "cap": SETTINGS.decode.age.cap,
            "skipped": SETTINGS.decode.age.skipped,
            "confidence": SETTINGS.statistics.confidence,
        },
        code=code("decode_age_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/decode_age_table.py"


rule drift_rows:
    output:
        rows="results/decode/drift.parquet",
        provenance="results/decode/drift.json",
    log:
        "results/logs/drift_rows.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=SETTINGS.decode.drift.model_dump(),
        code=code("drift_rows.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/drift_rows.py"


rule decode_age_figure:
    input:
        age="results/decode/age/{shape}/age.parquet",
        slopes="results/tables/decode_age.parquet",
    output:
        report(
            "results/figures/decode_age/{shape}.svg",
            caption="../workflow/report/decode_age.rst",
            category="Decode",
            subcategory="Figures",
            labels={
                "figure": "age of the stream",
                "shape": "{shape}",
            },
        ),
    log:
        "results/logs/decode_age/{shape}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("decode_age_figure.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/decode_age_figure.py"


rule rotation_drift:
    input:
        drift="results/decode/drift.parquet",
    output:
        report(
            "results/figures/rotation_drift.svg",
            caption="../workflow/report/rotation_drift.rst",
            category="Decode",
            subcategory="Figures",
            labels={
                "figure": "drift of rotations",
            },
        ),
    log:
        "results/logs/rotation_drift.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("rotation_drift.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/rotation_drift.py"


rule decode_leaves:
    input:
        expand("results/tables/{table}.csv", table=DECODE_TABLES),
        [
            f"results/figures/{figure}/{group}/{shape}.svg"
            for figure in ("decode_bandwidth", "decode_steps")
            for group, shape in decoded()
        ],
        expand("results/figures/decode_age/{shape}.svg", shape=SETTINGS.decode.age.shapes),
        "results/figures/rotation_drift.svg",
