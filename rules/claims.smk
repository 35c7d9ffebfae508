# The ledger: what the sources claim, held against the tables.


rule claims_table:
    input:
        **{
            name: f"results/tables/{name}.parquet"
            for name in (
                *EVICTION_TABLES,
                *REUSE_TABLES,
                *MERGE_TABLES,
                *ATTENTION_TABLES,
                *DECODE_TABLES,
                *PROBE_TABLES,
            )
        },
        answers=expand("results/reuse/{arm}/items.parquet", arm=REUSE_ARM_OF),
        merged=expand("results/merge/{arm}/items.parquet", arm=MERGE_ARM_OF),
        decode_tokens=[f"results/decode/{run.path}/tokens.parquet" for run in DECODE_RUNS],
        settings=expand("results/eviction/{arm}/setting.json", arm=ARM_OF),
        tokens=expand("results/eviction/{arm}/tokens.parquet", arm=ARM_OF),
    output:
        claims="results/tables/claims.csv",
        claims_parquet="results/tables/claims.parquet",
        tests="results/tables/claim_tests.csv",
        tests_parquet="results/tables/claim_tests.parquet",
        negative="results/tables/negative_results.csv",
        negative_parquet="results/tables/negative_results.parquet",
        recommended="results/tables/recommended.csv",
        recommended_parquet="results/tables/recommended.parquet",
        provenance="results/tables/claims.json",
        claims_html=report(
            "results/tables/claims.html",
            caption="../workflow/report/claims_table.rst",
            category="Claims",
            labels={"table": "scoreboard"},
        ),
        tests_html=report(
            "results/tables/claim_tests.html",
            caption="../workflow/report/claim_tests_table.rst",
            category="Claims",
            labels={"table": "evidence"},
        ),
        negative_html=report(
            "results/tables/negative_results.html",
            caption="../workflow/report/negative_table.rst",
            category="Claims",
            labels={"table": "negative results"},
        ),
        recommended_html=report(
            "results/tables/recommended.html",
            caption="../workflow/report/recommended_table.rst",
            category="Claims",
            labels={"table": "recommended settings"},
        ),
    log:
        "results/logs/claims_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={
            "claims": {name: claim.model_dump() for name, claim in SETTINGS.claims.items()},
            "margins": SETTINGS.margins.model_dump(),
            "recommend": {name: use.model_dump() for name, use in SETTINGS.recommend.items()},
            "statistics": SETTINGS.statistics.model_dump(),
        },
        code=code("claims_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/claims_table.py"
