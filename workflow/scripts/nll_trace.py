"""The loss along one document, with marks at prunes."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.nll_trace import nll_trace
from kvpareto.report.merged import trace_frame
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "nll_trace.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    reference = read_parquet(snakemake.input.reference)
    traces = {
        name: trace_frame(read_parquet(file), reference, **snakemake.params.p["stretch"])
        for name, file in zip(snakemake.params.p["names"], snakemake.input.tokens, strict=True)
    }
    save_svg(nll_trace(traces, title=f"{model} on {text}"), snakemake.output[0])
