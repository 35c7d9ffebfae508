"""A stream's time, memory and error by its age, and the slopes: the `decode_age` table."""

from pathlib import Path

import pandas as pd

from kvpareto.engine.age import by_age, slopes
from kvpareto.jobs import job
from kvpareto.records import read_parquet, write_parquet
from kvpareto.report.tables import write_table

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_age_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    found = []
    for shape, times, errors, ages in zip(
        p["shapes"],
        snakemake.input.times,
        snakemake.input.errors,
        snakemake.output.ages,
        strict=True,
    ):
        about = {"shape": shape, "cap": p["cap"]}
        rows = by_age(read_parquet(times), read_parquet(errors)).assign(**about)
        write_parquet(ages, rows)
        found.append(slopes(rows, p["skipped"], p["confidence"]).assign(**about))
    table = pd.concat(found)
    first = ["shape", "cap", "engine", "measure"]
    table = table[[*first, *(name for name in table if name not in first)]]
    write_table(table.sort_values(first, kind="stable"), Path(snakemake.output.csv).with_suffix(""))
