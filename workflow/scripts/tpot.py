"""Time per token against the prune period."""

from pathlib import Path

from kvpareto.claims.study import joined
from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.tpot import tpot_against_period
from kvpareto.report.merged import of_pair, with_settings
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "tpot.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    eviction = of_pair(read_parquet(snakemake.input.eviction), model, text)
    timing = of_pair(read_parquet(snakemake.input.timing), model, text)
    frame = joined(with_settings(eviction, snakemake.input.settings), timing)
    save_svg(tpot_against_period(frame, title=f"{model} on {text}"), snakemake.output[0])
