"""The fixed baseline of a model and a text: quality and averaged time of recompute, per cap."""

from pathlib import Path
from statistics import fmean, stdev

from kvpareto.jobs import job
from kvpareto.records import read_json, write_json

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "baseline_average.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    times = read_json(snakemake.input.time)
    caps = {}
    for file in snakemake.input.summaries:
        quality = read_json(file)
        time = times[str(quality["cap"])]
        runs = time["run_ms"]
        spread = stdev(runs) if len(runs) > 1 else None
        caps[str(quality["cap"])] = {
            "setting": quality["setting"],
            "quality": {name: quality.get(name) for name in ("ppl", "scored_tokens", "status")},
            "time": time | {"mean_of_runs_ms": fmean(runs), "spread_of_runs_ms": spread},
        }
    identity = {name: snakemake.wildcards[name] for name in ("model", "text")}
    identity["timed_on"] = snakemake.params.p["timed_on"]
    write_json(snakemake.output.average, identity | {"caps": caps})
