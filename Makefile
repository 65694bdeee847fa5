# One entry for people and for CI: `make` lists the targets. Everything is installed into .venv at the first use and
# again only when pyproject.toml or constraints.txt change.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PY := .venv/bin/python
MAIN := .venv/.main-installed
DEV := .venv/.dev-installed
DVC := .venv-dvc/.installed
ALIBI := .venv-alibi/.installed
INSTALL := tools/install.sh
export PYTHON
# The instance that the demo writes and the UI shows; set DAGSTER_HOME yourself for another one.
export DAGSTER_HOME ?= $(CURDIR)/dagster_home
# pytest's temporary homes and ports are its own: nothing of the caller's deployment reaches a test.
PYTEST := env -u DAGSTER_HOME $(PY) -m pytest

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(MAIN): pyproject.toml constraints.txt $(INSTALL)
	@$(INSTALL) main
	@touch $@

$(DEV): pyproject.toml constraints.txt $(INSTALL)
	@$(INSTALL) dev
	@touch $(MAIN) $@

.PHONY: setup
setup: $(MAIN) ## install what it takes to run into .venv (Python 3.11)
	@echo "ready: source .venv/bin/activate"

.PHONY: setup-dev
setup-dev: $(DEV) ## the same and the tools of the tests and checks
	@echo "ready: source .venv/bin/activate"

$(DVC): tools/dvc-constraints.txt tools/install_dvc.sh | $(MAIN)
	@tools/install_dvc.sh
	@touch $@

.PHONY: dvc
dvc: $(DVC) ## install DVC into .venv-dvc, an environment of its own
	@echo "ready: .venv-dvc/bin/dvc"

$(ALIBI): tools/alibi-constraints.txt tools/install_alibi.sh | $(MAIN)
	@tools/install_alibi.sh
	@touch $@

.PHONY: alibi
alibi: $(ALIBI) ## install Alibi Detect into .venv-alibi, an environment of its own
	@echo "ready: drift_report takes detector: alibi"

.PHONY: test-alibi
test-alibi: $(DEV) $(ALIBI) ## the test of Alibi Detect as the drift detector, which is skipped elsewhere
	$(PYTEST) tests/integration/test_alibi.py

.PHONY: demo
demo: $(MAIN) ## the whole chain on the embedded pictures, ten captions over HTTP, a summary
	@$(PY) -m vlm_assets demo

.PHONY: up
up: $(MAIN) ## Dagster UI and daemon, MLflow and Ray Serve in this terminal; Ctrl-C stops all
	@$(PY) -m vlm_assets up

.PHONY: test
test: $(DEV) $(DVC) ## the whole suite: unit, integration and browser
	$(PYTEST) -m "not slow"

.PHONY: test-fast
test-fast: $(DEV) ## unit tests only
	$(PYTEST) tests/unit

.PHONY: test-slow
test-slow: $(DEV) $(DVC) ## the tests that take minutes each
	$(PYTEST) -m slow

.PHONY: test-gpu
test-gpu: ## the tests for an NVIDIA GPU, with whatever Python has torch and transformers: make test-gpu PYTHON=python3
	$(or $(PYTHON),$(PY)) -m pytest -s tests/gpu

.PHONY: check
check: $(DEV) ## lint, format and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

.PHONY: fmt
fmt: $(DEV) ## format and apply the safe fixes
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.PHONY: lock
lock: $(DEV) ## write constraints.txt from what .venv holds
	@tools/lock.sh

.PHONY: bench-data
bench-data: $(DEV) ## speed and memory of the data stage, as ratios; writes bench-data.json
	OMP_NUM_THREADS=1 $(PY) -W ignore -m tests.benchmarks.bench_data $(ARGS)

.PHONY: bench-metrics
bench-metrics: $(DEV) ## speed of the caption metrics
	$(PY) -m tests.benchmarks.bench_metrics

.PHONY: bench-intervals
bench-intervals: $(DEV) ## how often the report's intervals say "surely better" where nothing is
	OMP_NUM_THREADS=1 $(PY) -m tests.benchmarks.bench_intervals

.PHONY: bench-transfer
bench-transfer: $(DEV) ## what the base model is worth: the demo's model beside one trained from nothing
	$(PY) -W ignore -m tests.benchmarks.bench_transfer

.PHONY: bench-train
bench-train: $(DEV) ## speed and memory of training, beside stock transformers
	$(PY) -W ignore -m tests.benchmarks.bench_train --model mini --batch 32 --steps 40
	$(PY) -W ignore -m tests.benchmarks.bench_train --model base --steps 6

.PHONY: bench-engine
bench-engine: $(DEV) ## speed of captioning, beside stock transformers
	$(PY) -W ignore -m tests.benchmarks.bench_engine --dtype fp32
	$(PY) -W ignore -m tests.benchmarks.bench_engine --dtype bf16

.PHONY: bench-http
bench-http: $(DEV) ## captions over HTTP beside Ray Serve, LitServe, BentoML and FastAPI with the stock model
	$(PY) -W ignore -m tests.benchmarks.bench_http --model mini --json bench-http-mini.json $(ARGS)
	$(PY) -W ignore -m tests.benchmarks.bench_http --model base --json bench-http-base.json $(ARGS)

.PHONY: test-load
test-load: $(DEV) ## 10,000 requests through updates, a rollback and killed replicas; five times the capacity
	$(PY) -W ignore -m tests.load.continuous
	$(PY) -W ignore -m tests.load.overload

.PHONY: soak
soak: $(DEV) ## a server at 80 % load, the slope of its memory: make soak MINUTES=30
	$(PY) -W ignore -m tests.load.soak --minutes $(or $(MINUTES),30)

.PHONY: bench-drift
bench-drift: $(DEV) ## false alarms and power of the drift test on real drawings; run `make demo` first
	OMP_NUM_THREADS=1 $(PY) -W ignore -m tests.benchmarks.bench_drift $(ARGS)

.PHONY: clean-state
clean-state: ## remove every run, artifact and log of dagster_home; presets and dagster.yaml stay
	@find dagster_home -mindepth 1 -maxdepth 1 ! -name dagster.yaml ! -name presets -exec rm -rf {} +
	@echo "dagster_home holds dagster.yaml and presets only"
