# Two commands: make demo, make test. Both make their own environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow docs results clean

demo: .venv/installed
	$(BIN)/smoothinfer demo --out demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

slow: .venv/installed
	$(BIN)/pytest -m slow

# The user guide, into build/docs/index.html; its tutorials run on the way.
docs: .venv/installed
	$(BIN)/pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

# Every table and figure of the paper whose models are in runs/ or shipped, and one report of them
# all; hours on a CPU.
DATA ?= uoft-cs/cifar10
SCALE ?= short
results: .venv/installed
	$(BIN)/smoothinfer reproduce all --data $(DATA) --scale $(SCALE) --out results

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv demo build docs/gallery docs/reference/generated
