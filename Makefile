# `make quickstart` trains and tests a small model; `make test` is what CI runs. Both install what they need.
# Everything is installed into .venv from lock files with hashes; a second run installs nothing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
# Test processes. Each also compiles on its own thread, so using more processes than cores gains nothing.
WORKERS ?= 2
CHECKED := $(wildcard src tests examples benchmarks tools)
LOCKS := $(patsubst %,requirements/%.txt,runtime test docs mutants adapters)

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------------------------

# PYTHON=/path/to/python chooses one; otherwise the first of these that is 3.11 or later and can make a venv.
PYTHON ?= python3 python3.13 python3.12 python3.11 python3.14 python

$(VENV)/made:
	@if [ ! -x $(PY) ]; then \
	  for python in $(PYTHON); do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "making $(VENV) with $$("$$python" --version 2>&1)"; "$$python" -m venv $(VENV); break; \
	    fi; \
	  done; \
	fi
	@if [ ! -x $(PY) ]; then \
	  echo "innerloop needs Python 3.11 or later with venv and ensurepip; none of these qualifies: $(PYTHON)." >&2; \
	  echo "Install one (on Debian and Ubuntu also python3-venv), or run: make PYTHON=/path/to/python $(MAKECMDGOALS)" >&2; \
	  exit 1; \
	fi
	@if ! $(PY) -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "$(VENV) is older than Python 3.11 or has no pip; remove it with: make clean" >&2; exit 1; \
	fi
	@touch $@

# $(call install,LOCK FILE): install exactly what the lock file lists, then this package in editable mode. The file is
# complete, hence --no-deps: for `coverage[toml]`, older pips would take a newer release than the one with a hash.
define install
	@echo "installing $(1)"
	@$(PIP) install --no-deps --require-hashes -r $(1)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/installed-runtime: $(VENV)/made requirements/runtime.txt pyproject.toml
	$(call install,requirements/runtime.txt)

$(VENV)/installed-test: $(VENV)/made requirements/test.txt requirements/adapters.txt pyproject.toml
	@$(PIP) install --no-deps --require-hashes -r requirements/adapters.txt
	$(call install,requirements/test.txt)
	@touch $(VENV)/installed-runtime

$(VENV)/installed-docs: $(VENV)/made requirements/docs.txt pyproject.toml
	$(call install,requirements/docs.txt)

$(VENV)/installed-mutants: $(VENV)/installed-test requirements/mutants.txt
	$(call install,requirements/mutants.txt)

# --- for everyone ---------------------------------------------------------------------------------------------

.PHONY: quickstart
quickstart: $(VENV)/installed-runtime ## set up, train a small model, measure it, write a report
	@$(VENV)/bin/innerloop quickstart

.PHONY: test
test: lint pytest ## set up, then run lint, types and all tests, as CI does

# --- for developers -------------------------------------------------------------------------------------------

.PHONY: lint
lint: style types layers ## ruff, pyright, and the import layers of the packages

.PHONY: style
style: $(VENV)/installed-test
	$(VENV)/bin/ruff check $(CHECKED)
	$(VENV)/bin/ruff format --check $(CHECKED)

.PHONY: types
types: $(VENV)/installed-test
	$(VENV)/bin/pyright

.PHONY: layers
layers: $(VENV)/installed-test
	PYTHONPATH=src $(VENV)/bin/lint-imports --no-cache

.PHONY: pytest
pytest: $(VENV)/installed-test ## all tests
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

# A separate target, since measuring coverage makes Python 3.11 a third slower; from 3.12 on it costs little.
.PHONY: coverage
coverage: $(VENV)/installed-test ## all tests, which must cover at least 98 % of the lines of src
	COVERAGE_CORE=$$($(PY) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	  $(PY) -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report=term --cov-fail-under=98

.PHONY: test-faults
test-faults: $(VENV)/installed-test ## every fault that a run must survive, with 50 kills; rewrites docs/reference/reliability.md
	INNERLOOP_KILLS=50 INNERLOOP_RELIABILITY=1 $(PY) -m pytest tests/faults
	$(PY) -m tools.reliability_tables

.PHONY: fuzz
fuzz: $(VENV)/installed-test ## 20 000 hostile inputs for every reader, half an hour; rewrites docs/reference/reliability.md
	$(PY) -m tests.fuzz --write
	$(PY) -m tools.reliability_tables

.PHONY: mutants
mutants: $(VENV)/installed-mutants ## faulty changes to the source that tests must catch, an hour; rewrites docs/reference/reliability.md
	WORKERS=$(WORKERS) $(PY) -m tools.mutants
	$(PY) -m tools.reliability_tables

.PHONY: sbom
sbom: $(VENV)/installed-runtime ## write the software bill of materials, requirements/sbom.cdx.json, with licences
	$(PY) -m tools.sbom

.PHONY: format
format: $(VENV)/installed-test ## format the sources with ruff
	$(VENV)/bin/ruff check --fix $(CHECKED)
	$(VENV)/bin/ruff format $(CHECKED)

.PHONY: docs
docs: $(VENV)/installed-docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

.PHONY: wheel
wheel: $(VENV)/installed-runtime ## build the wheel and the source archive into dist/
	@rm -rf dist
	$(PY) -m hatchling build

OLDEST := .venv-oldest
OLDEST_PYTHON ?= 3.11

.PHONY: test-oldest
test-oldest: wheel ## test the wheel with the oldest versions that pyproject.toml allows (needs uv)
	$(UV) venv --quiet --clear --python $(OLDEST_PYTHON) $(OLDEST)
	$(UV) pip compile pyproject.toml --no-config --quiet --resolution lowest-direct --python-version 3.11 \
	  --group build --group test -o $(OLDEST)/requirements.txt
	$(UV) pip install --quiet --python $(OLDEST)/bin/python -r $(OLDEST)/requirements.txt dist/*.whl
	$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile

.PHONY: results
results: $(VENV)/installed-runtime ## remeasure and rewrite the tables of README.md and docs/reference/results.md
	$(PY) -m benchmarks.accuracy.measure

BENCH := .venv-bench

$(BENCH)/installed: benchmarks/requirements.txt | $(VENV)/made
	@test -x $(BENCH)/bin/python || $(PY) -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install -r benchmarks/requirements.txt
	@touch $@

.PHONY: bench-setup
bench-setup: $(VENV)/installed-runtime $(BENCH)/installed ## create .venv-bench with the peers, the libraries we compare with

.PHONY: bench-quick
bench-quick: bench-setup ## a few workloads against the fastest peers, about 3 minutes
	$(PY) -m benchmarks --quick

.PHONY: bench
bench: bench-setup ## all workloads against the peers; writes benchmarks/results.json and docs/reference/performance.md
	$(PY) -m benchmarks --all

.PHONY: bench-gpu
bench-gpu: ## all GPU benchmarks, against PyTorch if installed, under 8 minutes; DRY=1 tries them on a CPU
	PYTHONPATH=src $(if $(wildcard $(PY)),$(PY),python3) -m benchmarks.gpu $(if $(DRY),--dry)

# One version of each package for all Pythons, so that results do not depend on which Python made them.
UV = $(or $(wildcard $(VENV)/bin/uv),$(shell command -v uv),$(error `make lock` needs uv: pip install uv))
RESOLVE = $(UV) pip compile --no-config --quiet --universal --python-version 3.11 \
  --fork-strategy fewest --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links
COMPILE = $(RESOLVE) pyproject.toml

.PHONY: lock
lock: ## resolve the newest versions into requirements/ (needs uv)
	rm -f $(LOCKS)
	$(COMPILE) --group build --group test --group export --group lint --override requirements/overrides.in \
	  -o requirements/test.txt
	$(COMPILE) --group build -c requirements/test.txt -o requirements/runtime.txt
	$(COMPILE) --group build --group docs -c requirements/test.txt -o requirements/docs.txt
	$(COMPILE) --group build --group test --group mutants -c requirements/test.txt -o requirements/mutants.txt
	$(RESOLVE) --group adapters --no-deps -o requirements/adapters.txt
	@! grep -nE '://|^-|^/|file:' $(LOCKS) || { echo "a lock file names a URL or a path" >&2; exit 1; }

.PHONY: clean
clean: ## remove what make created: environments, dist, site and tool caches; keeps runs and data
	rm -rf $(VENV) $(BENCH) $(OLDEST) dist site .pytest_cache .ruff_cache .hypothesis .coverage .coverage.*
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
