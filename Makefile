# `make demo` and `make test` are all a fresh machine with Python 3.11 to 3.13 needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint bench clean

demo: $(STAMP)
	$(BIN)/diffad demo

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist loadscope

lint: $(STAMP)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# A CSV of a recording with a first column of timestamps, such as ETTh1.csv of github.com/zhouhaoyi/ETDataset.
bench: $(STAMP)
	@test -f "$(CSV)" || { echo "name a recording: make bench CSV=ETTh1.csv"; exit 2; }
	$(BIN)/python pipelines/benchmarks/imputation.py --csv "$(CSV)"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV)
