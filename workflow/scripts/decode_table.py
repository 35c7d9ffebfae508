"""The `decode` leaf table."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.report.decode_tables import decode_table
from kvpareto.report.tables import write_table

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    write_table(
        decode_table(snakemake.params.p["runs"]), Path(snakemake.output.csv).with_suffix("")
    )
