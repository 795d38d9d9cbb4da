# Each target sets up its own virtual environment, with the versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow release-check gpu docs format clean

# The main job on the embedded digits; leaves its results in runs/demo.
demo: $(VENV)/.package
	$(BIN)/multistage demo

# Linter, format check, type checker, layers, spelling, tests (one thread each, one process a
# core).
test: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

# The tests that take minutes.
test-slow: $(VENV)/.dev
	$(BIN)/pytest -m slow

# Wheel and source distribution in dist/; the wheel works in an empty environment elsewhere.
release-check: $(VENV)/.dev
	PYTHON=$(PYTHON) .ci/release-check

# What a GPU does with this package, in less than nine minutes, as gpu.md.
gpu: $(VENV)/.package
	$(BIN)/python benchmarks/gpu.py

# The documentation as a site in site/; a broken link is an error.
docs: $(VENV)/.docs
	$(BIN)/mkdocs build

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.package: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.package requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-dev.txt
	touch $@

$(VENV)/.docs: $(VENV)/bin/python requirements-docs.txt constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r requirements-docs.txt
	touch $@

clean:
	rm -rf $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache
