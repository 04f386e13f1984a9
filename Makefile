# Every command sets up .venv on first use: Python 3.11 or later, the versions of constraints.txt.
# Another interpreter: make PYTHON=python3.12 test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := runs/demo

.PHONY: help demo test test-slow lint types check format clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

# Written last, so that an installation that was interrupted is taken up again.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'masrouter needs Python 3.11 or later, $(PYTHON) is older; name another:' \
			'make PYTHON=python3.11 ...' >&2; exit 1; }
	@echo 'installing into $(VENV) (once; a few minutes)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -qq -c constraints.txt hatchling editables
	$(BIN)/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# Wide enough that no figure of the tables is cut off, whatever the terminal.
demo: export COLUMNS := 140
demo: $(INSTALLED) ## evaluate, train and route on a synthetic world, into runs/demo
	@rm -rf $(DEMO)
	@echo '== 1/4 synthetic logs: a made-up world, its figures say nothing about real models'
	$(BIN)/masrouter synth --out $(DEMO)/world --queries 300
	@echo '== 2/4 what would a router have got and paid, against simple rules?'
	$(BIN)/masrouter evaluate --logs $(DEMO)/world --catalog $(DEMO)/world/catalog.yaml \
		--folds 5 --seeds 1 --out $(DEMO)/evaluation
	@echo '== 3/4 learn a router'
	$(BIN)/masrouter train --logs $(DEMO)/world --catalog $(DEMO)/world/catalog.yaml \
		--out $(DEMO)/checkpoint --run-folder $(DEMO)/run
	@echo '== 4/4 ask it'
	$(BIN)/masrouter route --checkpoint $(DEMO)/checkpoint --willingness-to-pay 0.05 \
		'Write a one-sentence thank-you note to a chess club.' \
		'Implement a lock-free queue in Rust, with tests; it is hard to get right.' \
		'Find the eigenvalues of the transition matrix of a random walk on a cycle of 92 rooms.'

test: $(INSTALLED) ## the tests of every day, in two processes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-slow: $(INSTALLED) ## the tests that take longer than a few seconds each
	$(BIN)/python -m pytest -m slow

lint: $(INSTALLED) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy --strict on both packages
	$(BIN)/mypy

check: lint types test ## all that has to pass before a change is sent

format: $(INSTALLED) ## apply ruff's format and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what these commands made, .venv too
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find masrouter training tests -name __pycache__ -type d -prune -exec rm -rf {} +
