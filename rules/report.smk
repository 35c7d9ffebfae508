# Figures, and what `rule all` asks for.


rule pareto:
    input:
        eviction="results/tables/eviction.parquet",
        timing="results/tables/timing.parquet",
    output:
        report(
            "results/figures/pareto/{model}/{text}/cap{cap}.svg",
            caption="../workflow/report/pareto.rst",
            category="Eviction",
            subcategory="Pareto front",
            labels={"model": "{model}", "text": "{text}", "cap": "{cap}"},
        ),
    log:
        "results/logs/pareto/{model}/{text}/cap{cap}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("pareto.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/pareto.py"


rule period:
    input:
        eviction="results/tables/eviction.parquet",
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
    output:
        report(
            "results/figures/period/{model}/{text}.svg",
            caption="../workflow/report/period.rst",
            category="Eviction",
            subcategory="Prune period",
            labels={"model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/period/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("period.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/period.py"


rule attended:
    input:
        eviction="results/tables/eviction.parquet",
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
        model=model_files,
    output:
        report(
            "results/figures/attended/{model}/{text}.svg",
            caption="../workflow/report/attended.rst",
            category="Eviction",
            subcategory="Attended length",
            labels={"model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/attended/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=lambda wildcards: {"model": model_settings(wildcards)},
        code=code("attended.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/attended.py"


rule leaves:
    input:
        "results/tables/eviction.csv",
        "results/tables/timing.csv",
        "results/tables/provenance.csv",
        "results/tables/texts.csv",
        ["results/figures/pareto/{}/{}/cap{}.svg".format(*one) for one in figure_caps()],
        ["results/figures/period/{}/{}.svg".format(*pair) for pair in pairs()],
        ["results/figures/attended/{}/{}.svg".format(*pair) for pair in pairs()],
