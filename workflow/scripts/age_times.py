"""Time and memory of a stream at any age. Runs alone."""

from pathlib import Path

import torch

from kvpareto.decode_settings import DecodeAgeSettings, ShapeSettings
from kvpareto.engine.age import age_times
from kvpareto.engine.shapes import bench_of, shape_model
from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.text.streams import load_ids

p = snakemake.params.p
age = DecodeAgeSettings(**p["age"])
threads = age.threads
torch.set_num_threads(threads)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "age_times.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=threads,
    output=snakemake.output.provenance,
    exclusive=True,
):
    bench = bench_of(
        shape_model(ShapeSettings(**p["shape"]), ModelSettings(**p["model"])),
        load_ids(snakemake.input.ids)[:1],
        cap=age.cap,
        sinks=p["sinks"],
        threads=threads,
        block_tokens=1,
        gguf={},
    )
    write_parquet(snakemake.output.rows, age_times(p["arms"], bench, age))
