# Everything a person or CI runs. Each target installs what it needs into .venv; Python 3.11 or newer is all you bring.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install demo test check format bench bench-gpu models lock clean

help: ## list these targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# Layers, each a lock file on top of the last: to run (requirements.lock, what the images hold), with a local Kafka, to
# develop, to train and export (PyTorch, 5 GB).
$(VENV)/run: requirements-local.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a minute the first time)"
	@$(PIP) --require-hashes -r requirements-local.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/dev: requirements-dev.lock $(VENV)/run
	@echo "installing the development tools"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/export: requirements-export.lock $(VENV)/dev
	@echo "installing PyTorch and the export tools (5 GB)"
	@$(PIP) --require-hashes -r requirements-export.lock
	@touch $@

install: $(VENV)/run ## install what it takes to run
demo: $(VENV)/run ## play made-up content through a real local Kafka and watch
	@$(BIN)/python -m ops.demo

test: $(VENV)/export ## every test: unit, property, contract, integration on a real Kafka, chaos
	$(BIN)/python -m pytest

check: $(VENV)/dev ## format, lint, types, architecture, unit and property tests: before each commit
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --hypothesis-profile=quick -m "not kafka and not export" tests

format: $(VENV)/dev ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(VENV)/dev ## every speed claim, both sides in one run, to build/bench.json
	$(BIN)/python -m ops.bench

bench-gpu: $(VENV)/export ## what models/moderator is worth on an NVIDIA GPU, to build/bench-gpu.json
	$(BIN)/python -m ops.bench.gpu models/moderator

models: $(VENV)/export ## rebuild the models that ship, the larger one in hours: make models DATA=folder KEY=file
	@test -n "$(DATA)" || { echo "say where the labelled data is: make models DATA=folder"; exit 1; }
	$(BIN)/python -m export build --data $(DATA)
	$(BIN)/python -m export build export/recipes/moderator.yaml --data $(DATA) --rotations export/recipes/moderator.rotations.jsonl
	@if test -n "$(KEY)"; then for name in lite moderator; do $(BIN)/fairway bundle sign models/$$name --key "$(KEY)"; done; \
	  else echo "not signed: workers refuse it until \`fairway bundle sign\`, or make models ... KEY=file"; fi

lock: $(VENV)/dev ## resolve the dependencies anew
	$(PIP) uv
	for layer in "requirements.lock" "requirements-local.lock local" "requirements-dev.lock local dev" "requirements-export.lock local dev export"; do \
	  set -- $$layer; out=$$1; shift; extras=""; for extra; do extras="$$extras --extra $$extra"; done; \
	  $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	    --python-version 3.11 pyproject.toml $$extras -o $$out || exit 1; done

clean: ## remove what was built, and the local Kafka's data
	rm -rf $(VENV) build .fairway .mypy_cache .ruff_cache .pytest_cache .hypothesis
