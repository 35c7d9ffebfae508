"""The loss around prunes."""

from pathlib import Path

from kvpareto.claims.study import joined
from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.spikes import loss_around_prunes
from kvpareto.report.merged import of_pair, with_settings
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "spikes.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    model, text = snakemake.wildcards["model"], snakemake.wildcards["text"]
    eviction = of_pair(read_parquet(snakemake.input.eviction), model, text)
    spikes = of_pair(read_parquet(snakemake.input.spikes), model, text)
    figure = loss_around_prunes(
        of_pair(read_parquet(snakemake.input.curves), model, text),
        joined(with_settings(eviction, snakemake.input.settings), spikes),
        title=f"{model} on {text}",
    )
    save_svg(figure, snakemake.output[0])
