"""Time of attention against length, log-log."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.attention_growth import time_against_length
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "attention_growth.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    table = read_parquet(snakemake.input.attention)
    save_svg(time_against_length(table, title="self-attention"), snakemake.output[0])
