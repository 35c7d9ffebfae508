"""Steps of every engine and both speed-ups, of one group and shape."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.decode_steps import steps_and_speedups
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_steps.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    group, shape = snakemake.wildcards["group"], snakemake.wildcards["shape"]
    table = read_parquet(snakemake.input.decode)
    rows = table[(table["group"] == group) & (table["shape"] == shape)]
    save_svg(steps_and_speedups(rows, title=shape), snakemake.output[0])
