# The self-attention module: whether it is right, how long it takes, its table and figures.


rule attention_quality:
    output:
        rows="results/attention/quality.parquet",
        provenance="results/attention/quality.json",
    log:
        "results/logs/attention_quality.log",
    conda:
        "../envs/kvpareto.yaml"
    threads: 1
    params:
        p=attention_settings(),
        code=code("attention_quality.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/attention_quality.py"


rule attention_time:
    input:
        # FlexAttention is compiled by then, which takes longer than all that is timed.
        rules.attention_quality.output.rows,
    output:
        rows="results/attention/time.parquet",
        provenance="results/attention/time.json",
    log:
        "results/logs/attention_time.log",
    conda:
        "../envs/kvpareto.yaml"
    # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
    threads: 999
    params:
        p={
            "settings": attention_settings(),
            "confidence": SETTINGS.statistics.confidence,
        },
        code=code("attention_time.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/attention_time.py"


rule attention_table:
    input:
        rules.attention_quality.output.rows,
        rules.attention_time.output.rows,
    output:
        csv="results/tables/attention.csv",
        parquet="results/tables/attention.parquet",
        provenance="results/tables/attention.json",
        html=report(
            "results/tables/attention.html",
            caption="../workflow/report/attention_table.rst",
            category="Attention",
            subcategory="Tables",
            labels={"table": "every backend"},
        ),
    log:
        "results/logs/attention_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"columns": ["backend", "length", "dtype", "measure"]},
        code=code("concatenate.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/concatenate.py"


rule attention_growth:
    input:
        attention=rules.attention_table.output.parquet,
    output:
        report(
            "results/figures/attention_growth.svg",
            caption="../workflow/report/attention_growth.rst",
            category="Attention",
            subcategory="Figures",
            labels={"figure": "time against length"},
        ),
    log:
        "results/logs/attention_growth.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("attention_growth.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/attention_growth.py"


rule attention_split:
    input:
        attention=rules.attention_table.output.parquet,
    output:
        report(
            "results/figures/attention_split.svg",
            caption="../workflow/report/attention_split.rst",
            category="Attention",
            subcategory="Figures",
            labels={"figure": "forward and backward"},
        ),
    log:
        "results/logs/attention_split.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("attention_split.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/attention_split.py"


rule attention_leaves:
    input:
        "results/tables/attention.csv",
        expand("results/figures/{figure}.svg", figure=["attention_growth", "attention_split"]),
