# kvpareto: what can be done with a transformer's KV cache once the context outgrows it.
#
# Path grammar
#   results/text/<model>/<text>/                              token ids of a text under a model
#   results/eviction/<model>/<text>/<policy>/<setting>/       one quality run (a run folder)
#   results/timing/<model>/<text>/<policy>/                   one exclusive timing job
#   results/baselines/<model>-<text>_baseline_avg.json        the fixed baseline
#   results/items/<model>/<task>/                             prompts of a task as token ids
#   results/store/<model>/                                    the chunk store, named by content
#   results/reuse/<model>/<task>/<strategy>/<setting>/        one quality run of reuse
#   results/reuse_timing/<model>/<task>/<strategy>/           one exclusive timing job
#   results/merge/<model>/<task or text>/<offset>/<setting>/  one quality run of a merge
#   results/merge_memory/<model>/                             memory and time of the merge, alone
#   results/attention/                                        micro-benchmarks of self-attention
#   results/gguf/<shape>/<type>.gguf                          weights for llama.cpp
#   results/decode/<group>/<shape>/cap<cap>/threads<n>/       engines that took turns, alone
#   results/models/<model>/                                   converted models
#   results/tables/<name>.{csv,parquet,html}                  leaf tables
#   results/figures/<figure>/...                              pictures of the report
#   results/reference/<model>/                                training of the reference models
# Wildcards are identities; options are in the configuration.

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"
configfile: "config/claims.yaml"


report: "workflow/report/workflow.rst"


include: "rules/common.smk"
include: "rules/corpus.smk"
include: "rules/models.smk"
include: "rules/baseline.smk"
include: "rules/provenance.smk"
include: "rules/reuse.smk"
include: "rules/eviction.smk"
include: "rules/spikes.smk"
include: "rules/probes.smk"
include: "rules/merge.smk"
include: "rules/attention.smk"
include: "rules/decode.smk"
include: "rules/claims.smk"
include: "rules/reuse_report.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        rules.leaves.input,
        rules.reuse_leaves.input if REUSE_ARMS else [],
        rules.merge_leaves.input if MERGE_ARMS else [],
        rules.attention_leaves.input if SETTINGS.attention else [],
        rules.decode_leaves.input if DECODE_TABLES else [],
