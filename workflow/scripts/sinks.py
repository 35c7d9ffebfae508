"""Perplexity against the number of sinks."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.sinks import ppl_against_sinks
from kvpareto.report.merged import of_pair, with_settings
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "sinks.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    frame = of_pair(read_parquet(snakemake.input.eviction), model, text)
    frame = with_settings(frame, snakemake.input.settings)
    save_svg(ppl_against_sinks(frame, title=f"{model} on {text}"), snakemake.output[0])
