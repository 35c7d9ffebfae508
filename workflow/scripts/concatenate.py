"""A leaf table that is the rows of other jobs, one after the other."""

from pathlib import Path

import pandas as pd

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.tables import write_table

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "concatenate.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    frames = [read_parquet(file) for file in snakemake.input]
    rows = pd.concat([frame for frame in frames if len(frame)])
    first = snakemake.params.p["columns"]
    rows = rows.reindex(columns=[*first, *(name for name in rows if name not in first)])
    write_table(rows.sort_values(first, kind="stable"), Path(snakemake.output.csv).with_suffix(""))
