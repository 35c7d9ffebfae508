"""Memory of every policy, part by part."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.memory import memory_split_bars
from kvpareto.report.merged import of_pair
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "memory.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    frame = of_pair(read_parquet(snakemake.input.memory), model, text)
    save_svg(memory_split_bars(frame, title=f"{model} on {text}"), snakemake.output[0])
