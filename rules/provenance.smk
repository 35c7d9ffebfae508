# Where every run came from.


rule provenance_table:
    input:
        provenance_files(),
    output:
        csv="results/tables/provenance.csv",
        parquet="results/tables/provenance.parquet",
        html=report(
            "results/tables/provenance.html",
            caption="../workflow/report/provenance_table.rst",
            category="Provenance",
            labels={"table": "code, data and machine of every run"},
        ),
    log:
        "results/logs/provenance_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={},
        code=code("provenance_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/provenance_table.py"


rule texts_table:
    input:
        [f"results/text/{model}/{text}/documents.json" for model, text in pairs()],
    output:
        csv="results/tables/texts.csv",
        parquet="results/tables/texts.parquet",
        provenance="results/tables/texts.json",
        html=report(
            "results/tables/texts.html",
            caption="../workflow/report/texts_table.rst",
            category="Provenance",
            labels={"table": "documents, and whether they are those of the model's card"},
        ),
    log:
        "results/logs/texts_table.log",
    conda:
        "../envs/kvpareto.yaml"
    params:
        p={"pairs": pairs()},
        code=code("texts_table.py"),
        env=ENVIRONMENT,
    script:
        "../workflow/scripts/texts_table.py"
