# The fixed baseline: recompute's quality on thinned positions (an ordinary quality run), its time in
# a few runs, averaged. Every later job reads the file; none runs it again.


rule baseline_time:
    input:
        ids=ids_of,
        model=model_files,
    output:
        time="results/baselines/{model}/{text}/time.json",
        memory="results/baselines/{model}/{text}/memory.parquet",
        provenance="results/baselines/{model}/{text}/provenance.json",
    log:
        "results/logs/baseline_time/{model}-{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    threads: 999
    params:
        p=baseline_time_params,
        code=code("baseline_time.py", *policy_modules("start_recent", "recompute")),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/baseline_time.py"


rule baseline_average:
    input:
        time=lambda wildcards: f"results/baselines/{wildcards.model}/{timed_on(wildcards.text)}/time.json",
        summaries=lambda wildcards: [
            f"results/eviction/{arm.path}/summary.json" for arm in baseline_arms(wildcards)
        ],
    output:
        average="results/baselines/{model}-{text}_baseline_avg.json",
        provenance="results/baselines/{model}-{text}.json",
    log:
        "results/logs/baseline_average/{model}-{text}.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p=lambda wildcards: {"timed_on": timed_on(wildcards.text)},
        code=code("baseline_average.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/baseline_average.py"
