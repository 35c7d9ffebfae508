"""Time, cache and error against the age of the stream, of one shape."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.decode_age import cost_against_age
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_age_figure.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    shape = snakemake.wildcards["shape"]
    slopes = read_parquet(snakemake.input.slopes)
    figure = cost_against_age(
        read_parquet(snakemake.input.age), slopes[slopes["shape"] == shape], title=shape
    )
    save_svg(figure, snakemake.output[0])
