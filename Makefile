# Everything runs from a virtual environment that `make` itself makes; see `make help`.
#
#   make test PYTHON=python3.12              another interpreter
#   make setup TORCH="torch --index-url ..." another build of torch
#   make test JOBS=8                         more test processes

PYTHON ?= python3
VENV ?= .venv
JOBS ?= auto
BIN := $(VENV)/bin
TOOLS := .tools
STAMP := $(VENV)/.complete

# torch goes in first, or the resolver chooses for us: with an NVIDIA driver the newest build, which
# brings CUDA; without one the release that our CPU numbers were measured with. Modules are compiled
# when they are first imported, most never are.
TORCH ?= $(if $(wildcard /proc/driver/nvidia/version),torch,torch==2.13.0)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup test check pytest format demo clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make the virtual environment with all that is needed

# Side by side: the type checker would keep one processor busy for a minute and leave the rest idle.
test: $(STAMP) ## run the gates and the tests (CI=true adds the slow ones)
	@$(MAKE) --no-print-directory --jobs 2 check pytest

pytest: $(STAMP)
	$(BIN)/pytest -n $(JOBS) $(if $(CI),-m "not gpu")

check: $(STAMP) ## run the gates: format, lint, layers, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pyright

format: $(STAMP) ## format the code and mend what the linter can
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

demo: $(STAMP) ## collect, train, evaluate and show a looped world model of Hopper
	$(BIN)/loopwm demo

clean: ## remove the virtual environment and what tools left behind
	rm -rf $(VENV) $(TOOLS) .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile $(TORCH)
	$(BIN)/python -m pip install --quiet --no-compile --editable ".[dev]"
	@touch $@

# Debian and Ubuntu ship Python without the means to make an environment; virtualenv brings its own.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3.11'; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { \
		echo 'No python3-venv here; using virtualenv, installed in $(TOOLS).'; rm -rf $(VENV); \
		$(PYTHON) -m pip install --quiet --target $(TOOLS) virtualenv && \
		PYTHONPATH=$(TOOLS) $(PYTHON) -m virtualenv --quiet $(VENV); }
