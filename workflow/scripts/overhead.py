"""Forward and update time over the prune period."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.overhead import prune_overhead
from kvpareto.report.merged import of_pair
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "overhead.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    frame = of_pair(read_parquet(snakemake.input.probes), model, text)
    save_svg(prune_overhead(frame, title=f"{model} on {text}"), snakemake.output[0])
