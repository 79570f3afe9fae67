# Everything a contributor or a user types. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
# Tests of one file stay in one process: they share what is dear to start.
PARALLEL := --numprocesses=2 --dist=loadfile
STAMP := .venv/.installed
# The cluster that make brought up, its tools, and the names of the images that it holds.
IN_CLUSTER := set -a && . .run/images.env && set +a && export KUBECONFIG="$(CURDIR)/.run/kubeconfig" PATH="$(CURDIR)/.run/bin:$$PATH" &&
PACKAGES := -p falcon_operator -p falcon_trainer -p examples.demo -p tests

##@ Main job

demo: cluster-up images-load ## Fine-tune a small Falcon on a real cluster, serve it and ask it something
	@$(IN_CLUSTER) $(PYTHON) -m examples.demo

demo-clean: ## Delete what `make demo` made in the cluster (the cluster stays)
	@$(IN_CLUSTER) $(PYTHON) -m examples.demo --delete

include tests/cluster/cluster.mk

##@ Checks

test: lint test-unit test-integration test-e2e ## Everything: lint, unit, integration and end-to-end tests

test-unit: venv ## Tests without a cluster
	$(BIN)/pytest $(PARALLEL) tests/unit

test-integration: venv cluster-deps ## The operator against a real API server, its nodes played by kwok
	$(BIN)/pytest $(PARALLEL) tests/integration

test-e2e: venv cluster-up images-load ## Real pods of the real images on real nodes
	$(IN_CLUSTER) $(BIN)/pytest tests/e2e

chaos: venv cluster-up images-load ## Random faults at random steps on the local cluster (SEED=…, RUNS=3)
	$(IN_CLUSTER) $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --runs $(or $(RUNS),3)

lint: venv ## ruff, mypy --strict, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports

gpu-check: venv ## Attention kernels and activation checkpointing on this machine's GPU, against fp32
	$(BIN)/python bench/gpu_check.py

##@ Development

venv: $(STAMP) ## Make .venv with both distributions (editable) and the development tools
$(STAMP): requirements-build.lock requirements-dev.lock operator/requirements.lock trainer/requirements.lock operator/pyproject.toml trainer/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-build-isolation \
	  -r requirements-build.lock -r trainer/requirements.lock -r operator/requirements.lock -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e trainer -e operator
	touch $@

format: venv ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

crds: venv ## Write crds/, the chart's CRD and deploy/operator.yaml anew from the models
	$(BIN)/python -m falcon_operator.api.crd --write
	deploy/render

lock: venv ## Resolve the dependencies anew into the hashed locks
	scripts/lock

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo demo-clean test test-unit test-integration test-e2e chaos lint gpu-check venv format crds lock help
