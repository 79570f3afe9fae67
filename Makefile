# Everything a contributor or a user types. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

##@ Main job

##@ Development

venv: $(STAMP) ## Make .venv with both distributions (editable) and the development tools
$(STAMP): requirements-build.lock requirements-dev.lock operator/requirements.lock trainer/requirements.lock operator/pyproject.toml trainer/pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-build.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --no-build-isolation \
	  -r requirements-build.lock -r trainer/requirements.lock -r operator/requirements.lock -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e trainer -e operator
	touch $@

lock: venv ## Resolve the dependencies anew into the hashed locks
	scripts/lock

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-zA-Z0-9_-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv lock help
