"""Distance of a stream from the oracle at any age."""

from pathlib import Path

import torch

from kvpareto.decode_settings import DecodeAgeSettings, ShapeSettings
from kvpareto.engine.age import age_errors
from kvpareto.engine.shapes import bench_of, shape_model
from kvpareto.jobs import job
from kvpareto.model_settings import ModelSettings
from kvpareto.records import write_parquet
from kvpareto.text.streams import load_ids

p = snakemake.params.p
age = DecodeAgeSettings(**p["age"])
threads = 1
torch.set_num_threads(threads)

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "age_errors.py",
    modules=p["modules"],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=threads,
    output=snakemake.output.provenance,
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
    write_parquet(snakemake.output.rows, age_errors(p["arms"], bench, age))
