"""Forward and backward time of attention."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.attention_split import forward_and_backward
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "attention_split.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    table = read_parquet(snakemake.input.attention)
    save_svg(forward_and_backward(table, title="self-attention"), snakemake.output[0])
