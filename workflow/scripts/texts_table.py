"""The `texts` table: every scored document, and whether it is the one on the model's card."""

from pathlib import Path

import pandas as pd

from kvpareto.jobs import job
from kvpareto.records import read_json
from kvpareto.report.tables import write_table

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "texts_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    rows = [
        {"model": model, "text": text, "document": document["name"]}
        | {"as_on_card": document["as_on_card"], "sha256": document["sha256"]}
        for (model, text), file in zip(snakemake.params.p["pairs"], snakemake.input, strict=True)
        for document in read_json(file)["documents"]
    ]
    write_table(pd.DataFrame(rows), Path(snakemake.output.csv).with_suffix(""))
