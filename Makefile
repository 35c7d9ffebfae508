# The commands of this repository. `make` lists them.
# Cores for all jobs together: `make report CORES=8`. Another study: `make report
# CONFIG=config/full.yaml`. One model to adopt: `make adopt MODEL=name`.
CORES ?= 2
CONFIG ?=
MODEL ?= ref-neox
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)

BIN := .venv/bin
READY := .venv/.ready
# What tests and checks need beside it; `make test EXTRAS=test,peers` adds a peer of the engines.
TESTABLE := .venv/.testable
EXTRAS ?= test
STUDY := $(if $(CONFIG),--configfile $(CONFIG))
# Snakemake whose jobs begin with the libraries imported.
SNAKEMAKE := $(BIN)/python workflow/warm.py --cores $(CORES) $(STUDY)
# It looks for shfmt, which is installed beside it, on the PATH.
SNAKEFMT := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/snakefmt

.DEFAULT_GOAL := help
.PHONY: help report resume decode gpu-bench reference adopt test lint format schema clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

report: $(READY) ## run whatever is missing or out of date, then write reports/report.html
	$(SNAKEMAKE)
	$(BIN)/snakemake $(STUDY) --report reports/report.html

resume: $(READY) ## the same after a run was killed: a killed run leaves its lock behind
	$(BIN)/snakemake --unlock
	$(MAKE) report

decode: $(READY) ## every shape, cap and engine of the decode part (hours)
	$(BIN)/snakemake decode_leaves --cores $(CORES) --configfile config/decode.yaml

# On a machine with a GPU, with what its Python has: no set-up, no network.
gpu-bench: ## decode engines and reuse on a GPU, at the shapes of known models
	PYTHONPATH=src $(PYTHON) -m kvpareto.engine.gpu_bench $(ARGUMENTS)

reference: $(READY) ## train the reference models from raw text, into results/reference (hours)
	$(BIN)/snakemake --cores $(CORES) reference_models $(STUDY)

adopt: ## make a trained reference model (MODEL=ref-neox) the one that ships, in resources/models
	@test -d results/reference/$(MODEL)/model || { \
	  echo "There is no results/reference/$(MODEL)/model: run 'make reference' first," \
	    "or name another model with MODEL=..." >&2; exit 1; }
	mkdir -p resources/models/$(MODEL)
	cp -R results/reference/$(MODEL)/model/. resources/models/$(MODEL)/

test: lint ## check style and types, then run all tests
	$(BIN)/pytest -n 2 --dist loadgroup

lint: $(TESTABLE) ## check style, types and workflow; change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(SNAKEFMT) --check Snakefile rules
	$(BIN)/snakemake --lint

format: $(TESTABLE) ## bring code and workflow into the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(SNAKEFMT) Snakefile rules

schema: $(READY) ## export the JSON schema of the configuration after a change of the settings
	$(BIN)/python -c 'from kvpareto.settings import export_schema; print(export_schema(), end="")' \
	  > workflow/schemas/config.schema.json

clean: ## remove what was generated, except .venv and the trained models in results/reference
	find results -mindepth 1 -maxdepth 1 ! -name README.md ! -name reference -exec rm -rf {} +
	find reports -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +
	rm -rf .snakemake .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch goes first and alone: asked for through another package, pip may take another build of it.
# Compiling every module of every package at once takes minutes, and most are never imported: each
# is compiled when it is, and kept, whatever the environment says about that.
export PYTHONDONTWRITEBYTECODE :=
$(READY): pyproject.toml envs/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "kvpareto needs Python 3.11 or later as '$(PYTHON)';" \
	    "install it, or name another one with PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile "$$(grep '^torch==' envs/constraints.txt)"
	$(BIN)/pip install --quiet --no-compile -c envs/constraints.txt -e .
	@touch $@

$(TESTABLE): $(READY)
	$(BIN)/pip install --quiet --no-compile -c envs/constraints.txt -e '.[$(EXTRAS)]'
	@touch $@
