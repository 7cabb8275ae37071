# `make demo` runs the main job, `make test` the tests; each sets up what it needs in .venv first.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format docs benchmark harden clean

help:
	@echo "make demo       train the flip-flop at g = 0 and 0.9, print the table, draw the figure (about a minute)"
	@echo "make test       run the tests"
	@echo "make lint       check style and types"
	@echo "make docs       build the documentation in docs/_build/html"
	@echo "make benchmark  one table of what everything costs on this machine"
	@echo "make harden     try to break it: kills, a full disk, a cut link, broken files"
	@echo "make clean      remove the virtual environment and caches"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "rankscope needs Python 3.11 or later; say PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/rankscope demo --out runs/demo

# A process for every core, each with one thread.
test: $(INSTALLED)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff check src tests benchmarks hardening
	$(BIN)/ruff format --check src tests benchmarks hardening
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix src tests benchmarks hardening
	$(BIN)/ruff format src tests benchmarks hardening

# One thread: the gallery's networks are small.
docs: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

benchmark: $(INSTALLED)
	$(BIN)/python benchmarks/table.py

# Tries to break sweeps and readers: kills, full disks, cut links, broken files.
harden: $(INSTALLED)
	$(BIN)/python hardening/faults.py --quick
	$(BIN)/python hardening/fuzz.py --seconds 60

clean:
	rm -rf .venv build docs/_build docs/auto_gallery .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
