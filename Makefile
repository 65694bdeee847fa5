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
MONITORING := .monitoring/.unpacked
CI := .venv-ci/.installed
AIRFLOW := .venv-airflow/.installed
ALIBI := .venv-alibi/.installed
HELM := .venv-helm/.installed
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

$(HELM): tools/install_helm.sh | $(MAIN)
	@tools/install_helm.sh
	@touch $@

.PHONY: helm-check
helm-check: $(DEV) $(HELM) ## the Kubernetes chart: lint, schemas, policies, its Serve config on a real Ray
	$(PYTEST) tests/deploy

$(CI): tools/ci-constraints.txt tools/install_ci_tools.sh | $(MAIN)
	@tools/install_ci_tools.sh
	@touch $@

$(AIRFLOW): deploy/airflow/constraints.txt tools/install_airflow.sh | $(MAIN)
	@tools/install_airflow.sh
	@touch $@

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

.PHONY: drift-demo
drift-demo: $(MAIN) ## drift is noticed, retrained away, swapped in under traffic; a bad model is taken back
	@$(PY) -m vlm_assets drift-demo

.PHONY: up
up: $(MAIN) ## Dagster UI and daemon, MLflow and Ray Serve in this terminal; Ctrl-C stops all
	@$(PY) -m vlm_assets up

$(MONITORING): tools/install_monitoring.sh
	@tools/install_monitoring.sh
	@if [ -d .monitoring ]; then touch $@; fi

.PHONY: monitoring
monitoring: $(MAIN) $(MONITORING) ## Prometheus, Alertmanager and exporters beside make up; Ctrl-C stops them
	@$(PY) -m vlm_assets monitoring

.PHONY: dashboards
dashboards: $(DEV) ## write Grafana's dashboards from deploy/grafana/panels.py
	$(PY) -W ignore -m deploy.grafana.make_dashboards

.PHONY: doctor
doctor: $(MAIN) ## what is wrong with this deployment, and what to do about it
	@$(PY) -m vlm_assets doctor

.PHONY: test
test: $(DEV) $(DVC) $(CI) $(HELM) $(MONITORING) ## the whole suite: unit, integration and browser
	$(PYTEST) -m "not slow"

.PHONY: test-fast
test-fast: $(DEV) ## unit tests only
	$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: $(DEV) $(DVC) ## a part of the integration tests: make test-integration PART=data
	$(PYTEST) -m "not slow" tests/integration/$(PART)

.PHONY: test-browser
test-browser: $(DEV) ## the tests that drive a browser
	$(PYTEST) tests/browser

.PHONY: test-slow
test-slow: $(DEV) $(DVC) $(MONITORING) ## the tests that take minutes each
	$(PYTEST) -m slow

.PHONY: test-gpu
test-gpu: ## the tests for an NVIDIA GPU, with whatever Python has torch and transformers: make test-gpu PYTHON=python3
	$(or $(PYTHON),$(PY)) -m pytest -s tests/gpu

.PHONY: compose-check
compose-check: $(DEV) ## build the images, start the box of deploy/compose.yaml, caption a picture; as root on Debian
	@tools/compose_check.sh

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

.PHONY: bench-regression
bench-regression: $(DEV) ## the data stage's figures, quickly, beside those of tests/benchmarks/baseline
	OMP_NUM_THREADS=1 $(PY) -W ignore -m tests.benchmarks.bench_data --quick
	$(PY) tools/compare_benchmarks.py tests/benchmarks/baseline/bench-data.json bench-data.json $(ARGS)

.PHONY: ci-check
ci-check: $(DEV) $(CI) ## workflows, Jenkinsfile and Dependabot: syntax, security, the same stages
	REQUIRE_CI_TOOLS=1 $(PYTEST) tests/unit/test_workflows.py tests/integration/test_ci_tools.py

.PHONY: airflow-test
airflow-test: $(DEV) $(AIRFLOW) ## the retraining DAG in a real Airflow against a real Dagster
	$(PYTEST) tests/integration/airflow

.PHONY: audit
audit: $(CI) ## known vulnerabilities of the locked versions; asks PyPI
	.venv-ci/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

.PHONY: deploy-check
deploy-check: ci-check helm-check airflow-test compose-check ## everything of deploy/ that can be checked in 20 minutes

# A release: REGISTRY (host/owner) and VERSION (vX.Y.Z, the tag). docker, trivy, cosign, helm and gh are the machine's.
IMAGES = $(patsubst deploy/docker/%.Dockerfile,%,$(wildcard deploy/docker/*.Dockerfile))
NUMBER = $(VERSION:v%=%)
# an owner's name may have capitals, an image's may not
PLACE = $(shell echo '$(REGISTRY)' | tr A-Z a-z)

.PHONY: release-notes
release-notes: ## this version's part of CHANGELOG.md into release-notes.md
	python3 tools/release_notes.py "$(VERSION)" > release-notes.md

.PHONY: images
images: ## build the images of deploy/docker
	@test -n "$(IMAGES)" || { echo "deploy/docker holds no Dockerfile" >&2; exit 1; }
	for image in $(IMAGES); do \
	    docker build -f "deploy/docker/$$image.Dockerfile" -t "$(PLACE)/vlm-$$image:$(NUMBER)" \
	        --build-arg VERSION="$(NUMBER)" --build-arg REVISION="$$(git rev-parse HEAD)" .; \
	done

.PHONY: images-scan
images-scan: ## refuse images with serious vulnerabilities that have a fix
	for image in $(IMAGES); do \
	    trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed "$(PLACE)/vlm-$$image:$(NUMBER)"; \
	done

.PHONY: registry-login
registry-login: ## log in to the registry as REGISTRY_USER with REGISTRY_TOKEN
	@printf '%s' "$$REGISTRY_TOKEN" | docker login "$(firstword $(subst /, ,$(PLACE)))" -u "$$REGISTRY_USER" --password-stdin

.PHONY: images-push
images-push: ## push the images
	for image in $(IMAGES); do docker push "$(PLACE)/vlm-$$image:$(NUMBER)"; done

.PHONY: images-sign
images-sign: ## sign what was pushed, by its digest: with COSIGN_KEY, or as the CI's own identity
	for image in $(IMAGES); do \
	    digest=$$(docker inspect --format '{{index .RepoDigests 0}}' "$(PLACE)/vlm-$$image:$(NUMBER)"); \
	    cosign sign --yes $${COSIGN_KEY:+--key "$$COSIGN_KEY"} "$$digest"; \
	done

.PHONY: chart
chart: ## package the Helm chart as this version
	helm package deploy/helm/vlm-captioning --version "$(NUMBER)" --app-version "$(NUMBER)" --destination dist

.PHONY: chart-push
chart-push: ## push the packaged chart
	helm push "dist/vlm-captioning-$(NUMBER).tgz" "oci://$(PLACE)/charts"

.PHONY: release-publish
release-publish: ## the page of the release, with its notes
	gh release create "$(VERSION)" --verify-tag --title "$(VERSION)" --notes-file release-notes.md

.PHONY: two-host-test
two-host-test: $(DEV) ## preparation, training and serving on a Ray of two hosts (network namespaces); one is cut off (root)
	$(PYTEST) -s tests/integration/test_two_hosts.py

.PHONY: bench-scaling
bench-scaling: $(DEV) ## what a picture costs at each stage, and what millions need; writes docs/scaling.md
	$(PY) -W ignore -m tests.benchmarks.bench_scaling --measure

.PHONY: clean-state
clean-state: ## remove every run, artifact and log of dagster_home; presets and dagster.yaml stay
	@find dagster_home -mindepth 1 -maxdepth 1 ! -name dagster.yaml ! -name presets -exec rm -rf {} +
	@echo "dagster_home holds dagster.yaml and presets only"
