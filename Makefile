# Two commands: make demo, make test. Both make their own environment in .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow results clean

demo: .venv/installed
	$(BIN)/smoothinfer demo --out demo

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

slow: .venv/installed
	$(BIN)/pytest -m slow

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
	rm -rf .venv demo
