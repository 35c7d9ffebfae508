"""What the columns of the leaf tables mean: kind, unit and one line of explanation each."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "code", "flag", "status", "count", "bytes", "number", "percent", "interval"]


class Column(NamedTuple):
    """How a column is shown.

    Attributes:
        kind: `number` is rounded to `digits` significant digits, `percent` is signed and rounded
            to two decimals, `count` is whole, `code` is set in a fixed-width font. An `interval` is
            the bounds `<name>_lo` and `<name>_hi` in one cell, without an estimate.
        meaning: one line for the tooltip and the legend.
        unit: shown below the column's name.
        digits: significant digits of a `number`.
    """

    kind: Kind
    meaning: str = ""
    unit: str = ""
    digits: int = 4


def _ms(meaning: str) -> Column:
    return Column("number", meaning, "ms", 3)


def _ratio(meaning: str) -> Column:
    return Column("number", meaning, "ratio", 3)


def _nats(meaning: str) -> Column:
    return Column("number", meaning, "nats", 3)


def _bytes(meaning: str) -> Column:
    return Column("bytes", meaning, "bytes")


COLUMNS: dict[str, Column] = {
    # who
    "model": Column("text", "model, as named in the configuration"),
    "text": Column("text", "text, as named in the configuration"),
    "task": Column("text", "task, as named in the configuration"),
    "policy": Column("text", "eviction policy"),
    "strategy": Column("text", "which tokens of reused chunks are computed anew"),
    "arm": Column("code", "what is compared"),
    "reference": Column("code", "what it is compared with"),
    "setting": Column("code", "id of the full setting: readable part, then hash"),
    "alias_of": Column("code", "another arm that keeps the same entries at every step, if any"),
    "layout": Column("text", "how the cache carries an eviction out"),
    "engine": Column("text", "decode engine"),
    "backend": Column("text", "attention backend"),
    "status": Column("status", "ok, or why there is no number"),
    "why": Column("text", "the reason in words"),
    "machine": Column("text", "machine that the times are of"),
    # budget
    "cap": Column("count", "total budget of the cache, per layer", "entries"),
    "cap_on": Column("text", "which length the cap bounds: after a prune, at its peak, or none"),
    "post_prune_len": Column("count", "entries kept right after a prune", "entries"),
    "mean_attended_len": Column("number", "mean attended length, current token included", "keys"),
    "peak_attended_len": Column("count", "longest attended length, current token included", "keys"),
    "extrapolating": Column("flag", "whether positions pass the model's trained length"),
    # quality
    "scored_tokens": Column("count", "tokens that the perplexity is over"),
    "ppl": Column("number", "perplexity: exp of the mean negative log-likelihood in nats"),
    "ppl_delta_pct": Column(
        "percent", "perplexity against recompute (merge: no offset), on the same tokens", "%"
    ),
    "ppl_delta_strict_pct": Column(
        "percent", "perplexity against strict streaming at the same cap, on the same tokens", "%"
    ),
    # time
    "tpot_ms_p50": _ms("time per output token, median"),
    "tpot_ms_p95": _ms("time per output token, 95th percentile"),
    "tpot_ms_p99": _ms("time per output token, 99th percentile"),
    "tpot_ms_max": _ms("time per output token, slowest token"),
    "tpot_ms_mean": _ms(
        "time per output token: median over blocks of their means, prunes included"
    ),
    "tpot_ratio": _ratio("time per token over the yardstick's, paired in one process; <1: faster"),
    "speedup_vs_recompute": _ratio("recompute's time per token over this arm's"),
    "speedup_vs_strict": _ratio("time per token of pruning at each step over this engine's"),
    "prune_ms_p50": _ms("median time of the steps that evict"),
    "plain_ms_p50": _ms("median time of the steps that do not evict"),
    "yardstick_ms": _ms("the yardstick's median time per token beside this arm"),
    "ttft_ms": _ms("time to first token: prefill and the first token"),
    "prefill_ms": _ms("time of the prefill"),
    "total_ms": _ms("time to first token and all timed tokens"),
    "timed_tokens": Column("count", "tokens that were timed"),
    "timed_on": Column(
        "text", "text that the times were taken on; lengths, not words, decide them"
    ),
    "kv_bytes": _bytes("keys and values at the peak length, from the shapes"),
    "peak_extra_bytes": _bytes("largest memory beyond weights and cache"),
    # reuse
    "ratio": Column("number", "share of the document's tokens that is computed anew", "", 3),
    "check_layer": Column("count", "layer in which the tokens are chosen"),
    "drop": Column("text", "eviction from the fused cache after the first token"),
    "first": Column("count", "tokens at the start of each chunk that are computed anew", "tokens"),
    "items": Column("count", "prompts"),
    "score_name": Column("text", "how answers are scored"),
    "score": _ratio("mean score over the prompts, 0 to 1; of a text its perplexity"),
    "score_delta": _ratio(
        "score less that of a full prefill (merge: no offset) on the same prompts"
    ),
    "kl_first_token": _nats("KL of the first answer token from a full prefill's"),
    "kl": Column("interval", "the KL's interval", "nats", 3),
    "top1_agreement": _ratio(
        "share of tokens that come out the same: a prompt's first as after a full prefill, a "
        "stream's next as the oracle's"
    ),
    "kv_error": _ratio("error of the document's keys and values, relative to their norm"),
    "greedy_match": _ratio("share of a full prefill's answer before the first difference"),
    "support_coverage": _ratio("share of the tokens that hold the answer that was computed anew"),
    "computed_share": _ratio("share of the document's tokens that was computed anew"),
    "ttft_ratio": _ratio("time to first token over a full prefill's, paired in one process"),
    "full_ms": _ms("a full prefill beside this arm"),
    "ttft_cold_ms": _ms("time to first token with the store read from disk"),
    "ttft_cold_ratio": _ratio("ttft_ratio with the store read from disk, digests verified"),
    "load_ms": _ms("putting the stored chunks together"),
    "rotate_ms": _ms("moving stored keys to their positions"),
    "select_ms": _ms("choosing the tokens"),
    "recompute_ms": _ms("computing them"),
    "first_token_ms": _ms("output layer, and handing the cache to the decoder"),
    "tpot_ms": _ms("time per output token after the first"),
    "timing_status": Column("status", "ok, or why there are no times"),
    "operations_ratio": _ratio("what the count of operations says of ttft_ratio"),
    "store_bytes": _bytes("what the task's chunks take in the store"),
    "entries": Column("count", "chunks in the store"),
    "tokens": Column("count", "tokens: of all entries, or of a prompt (median)", "tokens"),
    "references": Column("count", "how often prompts name an entry"),
    "shared": Column("count", "references to an entry that is there already"),
    "bytes_saved": _bytes("what a copy for each reference would take on top"),
    # merge
    "positions": Column("text", "whether chunks share their positions or follow one another"),
    "top_k": Column("count", "largest L whose mean is the target"),
    "chunks": Column("count", "chunks that are attended to one by one"),
    "gold_chunks": Column("count", "chunks among them that hold the answer"),
    "gold_mass": _ratio("share of attention on the chunk with the answer, after the offset"),
    "gold_mass_before": _ratio(
        "the same in the same pass, before the offset; ape's at its temperature"
    ),
    "kl_to_full": _nats(
        "KL from full attention over the same keys: first answer token, or a text's"
    ),
    "threshold": _nats("deficit beyond which a chunk is deleted"),
    "misjudged": Column("number", "share of chunks whose decision is turned around", "", 3),
    "temperature": Column("number", "what the context's logits are divided by", "", 3),
    "scale": Column("number", "what the context's L is scaled by, beside the temperature", "", 3),
    "run": Column("text", "chunk by chunk, all chunks at once, or as one concatenated cache"),
    "pass_ms": _ms("pass of the question over the context, median"),
    "pass_ratio": _ratio("its time over the concatenated control's, in turns in one process"),
    "step_ms": _ms("step of one token after it, median"),
    "step_ratio": _ratio("its time over the concatenated control's, in turns in one process"),
    # memory
    "part": Column("text", "what the memory is for; logits are a part of the transient"),
    "staging": Column("flag", "whether a buffer is kept for what a prune gathers"),
    "bytes": _bytes("measured"),
    "analytic_bytes": _bytes("from the shapes, where they tell"),
    # loss around prunes
    "peak_nats": _nats("largest mean loss over its level after a prune"),
    "area_nats": _nats("sum of the mean loss over its level after a prune"),
    "width_tokens": Column("count", "tokens at more than half the peak", "tokens"),
    "peak_null": Column("interval", "the peak around prunes shifted at random", "nats", 3),
    "area_null": Column("interval", "the area around prunes shifted at random", "nats", 3),
    "width_null": Column("interval", "the width around prunes shifted at random", "tokens", 2),
    "events": Column("count", "prunes in the study"),
    "period_tokens": Column("count", "median tokens between two prunes", "tokens"),
    "window_tokens": Column("count", "tokens after a prune that are looked at", "tokens"),
    "excess": Column("flag", "whether the peak lies above its null interval"),
    # decode
    "group": Column("text", "group of the configuration; its engines took turns in one process"),
    "shape": Column("text", "sizes of the model, as named in the configuration"),
    "threads": Column("count", "threads of a computation"),
    "weights": Column("text", "trained, or random: then only times and sizes mean anything"),
    "exact": Column("flag", "whether it means to compute strict streaming in float32"),
    "peak_bytes": _bytes("weights, cache, and what a step allocates beyond them"),
    "read_bytes": _bytes("weights and entries that a step has to read, each once"),
    "bandwidth_gb_s": Column("number", "reading speed measured in the same process", "GB/s", 3),
    "bandwidth_share": _ratio("read_bytes over what that speed reads in a median step"),
    "launches_per_step": Column(
        "number", "operators that the host starts per token; on CUDA kernels and graphs", "", 3
    ),
    "kl_to_oracle": _nats("mean KL of the next token from the oracle's, in the engine's own dtype"),
    "kl_to_oracle_max": _nats("the largest of a token"),
    "nll": _nats("mean loss on the document"),
    "oracle_nll": _nats("the oracle's on the same tokens"),
    "compared_tokens": Column("count", "tokens held against the oracle", "tokens"),
    "finite": Column("flag", "whether all logits are finite"),
    "first_non_finite": Column("code", "first layer whose output is not, where logits are not"),
    # attention
    "length": Column("count", "tokens of the sequence", "tokens"),
    "dtype": Column("text", "number format of weights and inputs"),
    # probes
    "probe": Column("text", "question that is asked"),
    "measure": Column("text", "what is measured"),
    "value": Column("number", "the measured value, in the unit of its row"),
    "unit": Column("text", "unit of the value"),
    # provenance
    "path": Column("code", "folder or file of the result"),
    "code_hash": Column("code", "hash of the script and every module it imports"),
    "data_hash": Column("code", "hash of the inputs"),
    "env_hash": Column("code", "hash of Python and library versions"),
    "commit": Column("code", "commit that was checked out"),
    "dirty": Column("flag", "whether files differed from the commit"),
    "started_at": Column("text", "start, UTC"),
    "made_at": Column("text", "end, UTC"),
    "exclusive": Column("flag", "whether the job ran alone: every timing job must"),
    # claims
    "id": Column("code", "name of the claim"),
    "source": Column("text", "document that makes the claim"),
    "says": Column("text", "the claim"),
    "trick": Column("text", "what does not pay"),
    "verdict": Column("status", "by rule, from interval and margin"),
    "metric": Column("text", "what is compared"),
    "estimate": Column("number", "difference from the reference, in percent unless why says"),
    "margin": Column("number", "difference that counts, fixed before looking", "", 3),
    "expect": Column("text", "what the claim expects of the difference"),
    "test": Column("count", "number of the test in the claim"),
    "tests": Column("count", "comparisons that have a verdict"),
    "decided_by": Column("text", "the comparison that the claim's row shows"),
    "judge": Column("text", "who decides on a deletion: each head, or the average of all"),
    "use": Column("text", "what the setting is recommended for"),
    "rule": Column("text", "the rule that picked it"),
}
"""By name; a column of one name means the same in every table."""
