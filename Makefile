# make demo: set up, generate a shop, train, evaluate, report.   make test: set up, lint, type-check, test.
# make demo-online: a generated shop goes online, served by a frozen model and by two that learn meanwhile.
# make docs: the site of documentation into build/site.
# make dist: sdist and wheel into dist/, the wheel tried outside the repository.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Small enough for two cores: 48 items encoded with gradient per step, five epochs. Leave them out for a full run.
DEMO := bank.live_budget=32 content.fusion.kind=concat train.encoder_lr=3e-4 model.dropout=0.2 train.epochs=5

# What is imported is compiled once, below, and kept; pip would compile all that it installs, four times as much.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo demo-online test style types units lint docs dist clean
install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[encoders,report,tensorboard,sweeps,downloads,faiss,huggingface,serve,redis,kafka,nats,docs,dev]'
	-$(BIN)/python tests/forked.py --load
	touch $@

demo: install
	$(BIN)/rawrec import synthetic --out data/shop --overwrite
	$(BIN)/rawrec inspect data/shop
	$(BIN)/rawrec train id --data data/shop --out runs/shop-id --overwrite
	$(BIN)/rawrec train em3 --data data/shop --out runs/shop-em3 --overwrite $(DEMO)
	$(BIN)/rawrec report runs/shop-em3 --against runs/shop-id
	$(BIN)/rawrec recommend runs/shop-em3 --user u1 -k 5

demo-online: install
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/demo_online.py --work runs/demo-online

style: install
	$(BIN)/ruff check src tests benchmarks docs/making examples/notebooks
	$(BIN)/ruff format --check src tests benchmarks docs/making examples/notebooks

types: install
	$(BIN)/pyright

lint: style types

# One worker per core that is there for us, each on one thread. Each begins with a stretch of the modules, in their order,
# so that fixtures are made once; who is through takes over half of what another has left.
WORKERS ?= $$($(BIN)/python -c "from rawrec import cores; print(cores.usable())")
units: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal

# Types are checked beside the tests: in a minute of one core they would leave the others idle.
test: install
	$(MAKE) --no-print-directory -j 2 style types units

# Strict: what MkDocs warns of, and what docs/making/checks.py finds, is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

dist: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/distribution.py

clean:
	rm -rf data runs
