# The event study: does the loss spike where entries are evicted?


rule spikes_table:
    input:
        tokens=expand("results/eviction/{arm}/tokens.parquet", arm=ARM_OF),
    output:
        csv="results/tables/spikes.csv",
        parquet="results/tables/spikes.parquet",
        curves="results/tables/spike_curves.parquet",
        provenance="results/tables/spikes.json",
        html=report(
            "results/tables/spikes.html",
            caption="../workflow/report/spikes_table.rst",
            category="Eviction",
            subcategory="Tables",
            labels={"table": "loss around prunes"},
        ),
    log:
        "results/logs/spikes_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"arms": arm_references(), "statistics": SETTINGS.statistics.model_dump()},
        code=code("spikes_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/spikes_table.py"
