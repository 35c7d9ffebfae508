"""Pareto figure of one model, text and cap, with budgets matched in one way."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.pareto import pareto_figure
from kvpareto.report.merged import pareto_frame
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "pareto.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text, cap = (snakemake.wildcards[name] for name in ("model", "text", "cap"))
    matched = snakemake.wildcards["matched"]
    frame = pareto_frame(
        read_parquet(snakemake.input.eviction),
        read_parquet(snakemake.input.timing),
        model,
        text,
        int(cap),
        matched,
    )
    length = matched.replace("_", "-")
    figure = pareto_figure(frame, title=f"{model} on {text}, cap {cap}, matched on {length} length")
    save_svg(figure, snakemake.output[0])
