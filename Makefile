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
MADE := runs/default-data

.PHONY: help demo default-data test test-slow lint types check format clean

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
demo: export COLUMNS := 150
demo: $(INSTALLED) ## the whole way on the data that comes with the project, into runs/demo
	@rm -rf $(DEMO)
	@echo '== 1/7 the logs: teams of simulated models on real problems. Is a team worth it?'
	$(BIN)/masrouter logs teams data/logs/grid.parquet
	@echo '== 2/7 what would a router have got and paid, against simple rules?'
	$(BIN)/masrouter evaluate --logs data/logs/grid.parquet --folds 3 --seeds 1 \
		--note 'The models are simulated: see data/README.md' --out $(DEMO)/evaluation
	@echo '== 3/7 learn a router'
	$(BIN)/masrouter train --logs data/logs/grid.parquet --out $(DEMO)/checkpoint \
		--run-folder $(DEMO)/run
	@echo '== 4/7 ask it'
	$(BIN)/masrouter route --checkpoint $(DEMO)/checkpoint --willingness-to-pay 0.01 \
		'def merge(a: list[int], b: list[int]) -> list[int]: """Merge two sorted lists."""' \
		'How many ways are there to seat seven people at a round table with two of them apart?'
	@echo '== 5/7 what would it have saved on logged traffic, and what would it have broken?'
	$(BIN)/masrouter replay --logs data/logs/grid.parquet --checkpoint $(DEMO)/checkpoint \
		--current-plan 'cot(gpt-4o)' --out $(DEMO)/replay
	@echo '== 6/7 let the routed teams answer (simulated models, a real sandbox)'
	$(BIN)/masrouter run --checkpoint $(DEMO)/checkpoint --willingness-to-pay 0.01 \
		--problems data/problems --limit 6
	@echo '== 7/7 hand out tasks, each to the model or team that fits it, under one budget'
	$(BIN)/masrouter delegate --tasks examples/tasks.yaml --budget 0.05 \
		--checkpoint $(DEMO)/checkpoint --problems data/problems --log $(DEMO)/episodes.jsonl

# Everything that the repository ships as data, made again. The logs come out byte for byte.
default-data: $(INSTALLED) ## collect data/logs anew and train checkpoints/default on them
	@rm -rf $(MADE)
	$(BIN)/masrouter collect --problems data/problems --plan-file data/plans.yaml \
		--plans grid --out $(MADE)/grid.sqlite
	$(BIN)/masrouter collect --problems data/problems --plan-file data/plans.yaml \
		--plans random --draws 12 --out $(MADE)/randomised.sqlite
	$(BIN)/masrouter collection export --no-clock $(MADE)/grid.sqlite data/logs/grid.parquet
	$(BIN)/masrouter collection export --no-clock $(MADE)/randomised.sqlite \
		data/logs/randomised.parquet
	$(BIN)/masrouter train --logs data/logs/grid.parquet --out checkpoints/default

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
