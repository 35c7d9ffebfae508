"""Time per token against the share of bandwidth, of one group and shape."""

from pathlib import Path

from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.figures.decode_bandwidth import time_against_bandwidth
from kvpareto.report.style import save_svg

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "decode_bandwidth.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=[],
    threads=1,
):
    group, shape = snakemake.wildcards["group"], snakemake.wildcards["shape"]
    table = read_parquet(snakemake.input.decode)
    rows = table[(table["group"] == group) & (table["shape"] == shape)]
    save_svg(time_against_bandwidth(rows, title=shape), snakemake.output[0])
