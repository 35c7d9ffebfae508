"""The ledger: a verdict on every claim, the evidence for it, and the recommended settings."""

from pathlib import Path

import pandas as pd

from kvpareto.claim_settings import Claim, Margins, Recommendation
from kvpareto.claims.ledger import ledger
from kvpareto.claims.negative import negative_results
from kvpareto.claims.recommend import recommended
from kvpareto.claims.study import KEYS, Study
from kvpareto.claims.timescale import noise_floor_pct
from kvpareto.eviction_settings import StatisticsSettings
from kvpareto.jobs import job
from kvpareto.records import read_parquet
from kvpareto.report.merged import with_settings
from kvpareto.report.tables import write_table

TABLES = (
    "eviction", "timing", "spikes", "probes", "memory", "reuse", "merge", "attention", "decode",
    "decode_age",
)  # fmt: skip

p = snakemake.params.p

with job(
    log_file=snakemake.log[0],
    script=Path(snakemake.scriptdir) / "claims_table.py",
    modules=[],
    code_hash=snakemake.params.code,
    inputs=snakemake.input,
    threads=1,
    output=snakemake.output.provenance,
):
    # A study without groups for a part has none of that part's tables.
    files = {name: snakemake.input.get(name) for name in TABLES}
    tables = {
        name: read_parquet(file) if file else pd.DataFrame(columns=KEYS)
        for name, file in files.items()
    }
    eviction = tables["eviction"]
    if files["eviction"]:
        eviction = with_settings(eviction, snakemake.input.settings)
    uses = {name: Recommendation(**use) for name, use in p["recommend"].items()}
    study = Study(
        **tables | {"eviction": eviction},
        tokens=lambda arm: read_parquet(Path("results/eviction") / arm / "tokens.parquet"),
        answers=lambda arm: read_parquet(Path("results/reuse") / arm / "items.parquet"),
        merged=lambda arm: read_parquet(Path("results/merge") / arm / "items.parquet"),
        decode_tokens=lambda run: read_parquet(Path("results/decode") / run / "tokens.parquet"),
        statistics=StatisticsSettings(**p["statistics"]),
        margins=Margins(**p["margins"]),
        recommend=uses,
        noise_floor_pct=noise_floor_pct(eviction, tables["timing"]),
    )
    entries = {name: Claim(**claim) for name, claim in p["claims"].items()}
    claims, tests = ledger(entries, study)
    for frame, csv in (
        (claims, snakemake.output.claims),
        (tests, snakemake.output.tests),
        (negative_results(claims, entries), snakemake.output.negative),
        (recommended(eviction, tables["timing"], uses), snakemake.output.recommended),
    ):
        write_table(frame, Path(csv).with_suffix(""))
