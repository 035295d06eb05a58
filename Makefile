# make demo: set up, generate a shop, train, evaluate, report.   make test: set up, lint, type-check, test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test lint bench clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[encoders,dev]'
	touch $@

demo: install
	$(BIN)/rawrec import synthetic --out data/shop --overwrite
	$(BIN)/rawrec inspect data/shop
	$(BIN)/rawrec train id --data data/shop --out runs/shop-id --overwrite
	$(BIN)/rawrec train em3 --data data/shop --out runs/shop-em3 --overwrite
	$(BIN)/rawrec report runs/shop-em3 --against runs/shop-id
	$(BIN)/rawrec recommend runs/shop-em3 --user u1 -k 5

lint: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright

test: lint
	$(BIN)/pytest

clean:
	rm -rf data runs
