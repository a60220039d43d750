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
	$(BIN)/pytest

slow: .venv/installed
	$(BIN)/pytest -m slow

# Every table and figure of the paper whose models are in runs/ or shipped, and one report of them
# all; hours on a CPU.
DATA ?= uoft-cs/cifar10
SCALE ?= short
EXPERIMENTS ?= table1 table2 table3 table4 figure1 figure2 \
    appendix-a figure-b1 figure-b2 figure-b3 figure-b4
results: .venv/installed
	for name in $(EXPERIMENTS); do \
	  $(BIN)/smoothinfer reproduce $$name --data $(DATA) --scale $(SCALE) --out results/$$name || \
	    { [ $$? -eq 2 ] && echo "$$name is left out, for the reason above"; } || exit 1; \
	done
	$(BIN)/smoothinfer report $$(for name in $(EXPERIMENTS); do \
	  [ -f results/$$name/$$name.md ] && echo results/$$name; done) --out results/report

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv demo
