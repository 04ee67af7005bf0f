# Everything runs in .venv, which is made on first use. FINN, for the tests and benchmarks, has an environment in
# the user's cache, which all clones share; GFB_FINN_PYTHON names another.
#   PYTHON=python3.12        the interpreter to make .venv with
#   CONSTRAINTS=             resolve from the ranges of pyproject.toml instead of the exact versions
#   JOBS=4                   test processes
#   ARGS="-k allocation"     further arguments for pytest, gfb or the benchmarks
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
JOBS ?= 3
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := .venv/.demo
BENCHMARKS := $(sort $(wildcard tests/benchmarks/bench_*.py))

# Small networks gain nothing from a second thread, and lose much when something else wants the core.
demo test unit bench: export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo docs test lint types unit format bench tables reference clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv with everything that the targets below need

$(BIN)/python:
	$(PYTHON) -m venv .venv

# What the demo needs, and all that the other targets need, which includes it.
$(DEMO) $(INSTALLED): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable '.[$(EXTRAS)]'
	@touch $(DEMO) $@
$(DEMO): EXTRAS := examples,export,report
$(INSTALLED): EXTRAS := dev

# A shell's assignment of FINN's interpreter, which is installed where it is missing.
WITH_FINN = GFB_FINN_PYTHON="$${GFB_FINN_PYTHON:-$$($(BIN)/gfb finn install)}" && export GFB_FINN_PYTHON

demo: $(DEMO)  ## search bit widths for a small network on handwritten digits, from scratch
	rm -rf runs/demo
	$(BIN)/gfb run examples/digits --run-folder runs/demo $(ARGS)

docs: $(INSTALLED)  ## build the documentation's site into build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test: $(INSTALLED)  ## all checks: lint, types and tests, side by side
	@$(MAKE) --no-print-directory --jobs 3 unit types lint

lint: $(INSTALLED)  ## ruff: lint and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)  ## mypy, strict, on both packages
	$(BIN)/mypy

unit: $(INSTALLED)  ## pytest; every warning is an error
	$(WITH_FINN) && $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

format: $(INSTALLED)  ## apply what ruff can repair
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)  ## run the benchmarks; results go to bench/NAME.json
	@mkdir -p bench
	@set -e; $(WITH_FINN); for file in $(BENCHMARKS); do \
	    name=$$(basename "$$file" .py); name=$${name#bench_}; \
	    echo "== $$name"; \
	    $(BIN)/python "$$file" --json "bench/$$name.json" $(ARGS); \
	done

tables: $(INSTALLED)  ## write the tables of the documentation from bench/*.json
	$(BIN)/python tests/benchmarks/update_tables.py

reference: $(INSTALLED)  ## write the tables of commands and settings in docs/cli.md
	$(BIN)/python docs/hooks/commands.py

clean:  ## remove results and caches; .venv and other runs stay
	rm -rf build dist bench runs/demo .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
