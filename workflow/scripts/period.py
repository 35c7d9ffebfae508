"""Perplexity against the prune period."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.period import ppl_against_period
from kvpareto.report.merged import of_pair, with_settings
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "period.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    frame = of_pair(read_parquet(snakemake.input.eviction), model, text)
    frame = with_settings(frame, snakemake.input.settings)
    save_svg(ppl_against_period(frame, title=f"{model} on {text}"), snakemake.output[0])
