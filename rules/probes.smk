# The probes: measurements that explain the arms, under the names that the sources gave them.
# A rule for each file in measure/probes, which run alone because they take times, and for each in
# claims/comparisons, which read what other rules have measured.


for probe in PROBES:

    rule:
        name:
            probe
        input:
            ids=ids_of,
            model=model_files,
        output:
            rows=f"results/probes/{{model}}/{{text}}/{probe}.parquet",
            provenance=f"results/probes/{{model}}/{{text}}/{probe}.json",
        log:
            f"results/logs/{probe}/{{model}}/{{text}}.log",
        conda:
            "../envs/kvpareto.yaml"
        # More threads than any machine has: scaled down to all cores, so nothing runs beside it.
        threads: 999
        params:
            p=probe_params(probe),
            code=code("probe.py", *probe_modules(probe)),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/probe.py"


for comparison in COMPARISONS:

    rule:
        name:
            comparison
        input:
            eviction=rules.eviction_table.output.parquet,
            timing=rules.timing_table.output.parquet,
            spikes=rules.spikes_table.output.parquet,
            settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
            tokens=expand("results/eviction/{arm}/tokens.parquet", arm=ARM_OF),
        output:
            rows=f"results/probes/{comparison}.parquet",
            provenance=f"results/probes/{comparison}.json",
        log:
            f"results/logs/{comparison}.log",
        conda:
            "../envs/kvpareto.yaml"
        params:
            p={
                "comparison": f"kvpareto.claims.comparisons.{comparison}",
                "statistics": SETTINGS.statistics.model_dump(),
            },
            code=code("comparison.py", f"kvpareto.claims.comparisons.{comparison}"),
            env=ENVIRONMENT,
        script:
            "../workflow/scripts/comparison.py"


rule memory_table:
    input:
        memory_files(),
    output:
        csv="results/tables/memory.csv",
        parquet="results/tables/memory.parquet",
        provenance="results/tables/memory.json",
        html=report(
            "results/tables/memory.html",
            caption="../workflow/report/memory_table.rst",
            category="Eviction",
            subcategory="Tables",
            labels={"table": "memory of every policy, part by part"},
        ),
    log:
        "results/logs/memory_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"columns": ["model", "text", "policy", "setting", "layout", "staging", "part"]},
        code=code("concatenate.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/concatenate.py"


rule probes_table:
    input:
        [
            f"results/probes/{model}/{text}/{probe}.parquet"
            for probe in PROBES
            for model, text in probed()
        ],
        expand("results/probes/{comparison}.parquet", comparison=COMPARISONS if ARMS else []),
        merge_probe_files(),
    output:
        csv="results/tables/probes.csv",
        parquet="results/tables/probes.parquet",
        provenance="results/tables/probes.json",
        html=report(
            "results/tables/probes.html",
            caption="../workflow/report/probes_table.rst",
            category="Probes",
            labels={"table": "probes"},
        ),
    log:
        "results/logs/probes_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"columns": ["probe", "model", "text", "setting", "measure"]},
        code=code("concatenate.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/concatenate.py"
