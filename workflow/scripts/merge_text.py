"""Perplexity after merged chunks, of one model."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.merge_text import ppl_against_chunks
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "merge_text.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model = snakemake.wildcards["model"]
    table = read_parquet(snakemake.input.merge)
    save_svg(ppl_against_chunks(table[table["model"] == model], title=model), snakemake.output[0])
