"""The `provenance` leaf table: code, data, environment and time of every run."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.report.aggregate import provenance_table
from kvpareto.report.tables import write_table

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "provenance_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    frame = provenance_table([Path(file) for file in snakemake.input])
    write_table(frame, Path(snakemake.output.csv).with_suffix(""))
