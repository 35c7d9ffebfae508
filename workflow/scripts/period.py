"""Perplexity against the prune period."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures import ppl_against_period
from kvpareto.report.merged import with_settings
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
    eviction = read_parquet(snakemake.input.eviction)
    mine = eviction[(eviction["model"] == model) & (eviction["text"] == text)]
    frame = with_settings(mine, snakemake.input.settings)
    frame = frame[frame["cap_on"] != "none"]  # windows of their own, not periods, tell these apart
    figure = ppl_against_period(frame, title=f"{model} on {text}")
    save_svg(figure, snakemake.output[0])
