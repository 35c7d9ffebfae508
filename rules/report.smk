# Figures, and what `rule all` asks for.


rule pareto:
    input:
        eviction=rules.eviction_table.output.parquet,
        timing=rules.timing_table.output.parquet,
    output:
        report(
            "results/figures/pareto/{model}/{text}/cap{cap}-{matched}.svg",
            caption="../workflow/report/pareto.rst",
            category="Eviction",
            subcategory="Pareto front",
            labels={
                "model": "{model}",
                "text": "{text}",
                "cap": "{cap}",
                "matched on": "{matched}",
            },
        ),
    log:
        "results/logs/pareto/{model}/{text}/cap{cap}-{matched}.log",
    wildcard_constraints:
        cap=r"\d+",
        matched="|".join(MATCHED),
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("pareto.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/pareto.py"


rule budget:
    input:
        eviction=rules.eviction_table.output.parquet,
        model=model_files,
    output:
        report(
            "results/figures/budget/{model}/{text}.svg",
            caption="../workflow/report/budget.rst",
            category="Eviction",
            subcategory="Budget",
            labels={"model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/budget/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=lambda wildcards: {"model": model_settings(wildcards)},
        code=code("budget.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/budget.py"


rule attended:
    input:
        eviction=rules.eviction_table.output.parquet,
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


rule period:
    input:
        eviction=rules.eviction_table.output.parquet,
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
    output:
        report(
            "results/figures/period/{model}/{text}.svg",
            caption="../workflow/report/period.rst",
            category="Eviction",
            subcategory="Prune period",
            labels={"figure": "perplexity", "model": "{model}", "text": "{text}"},
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


rule tpot:
    input:
        eviction=rules.eviction_table.output.parquet,
        timing=rules.timing_table.output.parquet,
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
    output:
        report(
            "results/figures/tpot/{model}/{text}.svg",
            caption="../workflow/report/tpot.rst",
            category="Eviction",
            subcategory="Prune period",
            labels={"figure": "time per token", "model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/tpot/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("tpot.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/tpot.py"


rule overhead:
    input:
        probes=rules.probes_table.output.parquet,
    output:
        report(
            "results/figures/overhead/{model}/{text}.svg",
            caption="../workflow/report/overhead.rst",
            category="Eviction",
            subcategory="Prune period",
            labels={"figure": "forward and update time", "model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/overhead/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("overhead.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/overhead.py"


rule sinks:
    input:
        eviction=rules.eviction_table.output.parquet,
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
    output:
        report(
            "results/figures/sinks/{model}/{text}.svg",
            caption="../workflow/report/sinks.rst",
            category="Eviction",
            subcategory="Sinks",
            labels={"model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/sinks/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("sinks.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/sinks.py"


rule spikes:
    input:
        eviction=rules.eviction_table.output.parquet,
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
        spikes=rules.spikes_table.output.parquet,
        curves=rules.spikes_table.output.curves,
    output:
        report(
            "results/figures/spikes/{model}/{text}.svg",
            caption="../workflow/report/spikes.rst",
            category="Eviction",
            subcategory="Loss around prunes",
            labels={"figure": "mean around prunes", "model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/spikes/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("spikes.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/spikes.py"


rule nll_trace:
    input:
        tokens=trace_tokens,
        reference=trace_reference,
    output:
        report(
            "results/figures/nll_trace/{model}/{text}.svg",
            caption="../workflow/report/nll_trace.rst",
            category="Eviction",
            subcategory="Loss around prunes",
            labels={"figure": "token by token", "model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/nll_trace/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=trace_params,
        code=code("nll_trace.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/nll_trace.py"


rule memory:
    input:
        memory=rules.memory_table.output.parquet,
    output:
        report(
            "results/figures/memory/{model}/{text}.svg",
            caption="../workflow/report/memory.rst",
            category="Eviction",
            subcategory="Memory",
            labels={"model": "{model}", "text": "{text}"},
        ),
    log:
        "results/logs/memory/{model}/{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("memory.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/memory.py"


rule leaves:
    input:
        expand(
            "results/tables/{table}.csv",
            table=[
                *EVICTION_TABLES,
                *PROBE_TABLES,
                *(["texts"] if ARMS else []),
                "claims",
                "provenance",
            ],
        ),
        [
            f"results/figures/pareto/{model}/{text}/cap{cap}-{matched}.svg"
            for model, text, cap in figure_caps()
            for matched in MATCHED
        ],
        [
            f"results/figures/{figure}/{model}/{text}.svg"
            for figure in ("period", "attended", "spikes")
            for model, text in pairs()
        ],
        [
            f"results/figures/{figure}/{model}/{text}.svg"
            for figure in ("tpot", "overhead", "memory")
            for model, text in probed()
        ],
        [f"results/figures/budget/{model}/{text}.svg" for model, text in budget_pairs()],
        [f"results/figures/sinks/{model}/{text}.svg" for model, text in sink_pairs()],
        [
            f"results/figures/nll_trace/{model}/{text}.svg"
            for model, text in pairs()
            if traced_arms(model, text)
        ],
