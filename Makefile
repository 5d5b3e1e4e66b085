# `make demo` and `make test` are all a newcomer needs: each creates the environment it uses.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SOURCES := pyproject.toml README.md

.PHONY: help demo test lint lit pytest clean

help:
	@echo 'make demo    compile the digits model to an engine and run it'
	@echo 'make test    lint, types, lit tests and pytest suites; each alone: make lint, make lit, make pytest'
	@echo 'make clean   remove what was built, and the environment in $(VENV)'
	@echo 'PYTHON=python3.12 chooses the interpreter, VENV=folder where the environment is made'

$(VENV)/demo.stamp: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e '.[compile]'
	touch $@

$(VENV)/test.stamp: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e '.[compile,gpu,test,dev]'
	touch $@ $(VENV)/demo.stamp

# Compile the digits model to an engine, run it on the GPU where one is found and else on the CPU.
demo: $(VENV)/demo.stamp
	$(BIN)/python examples/demo.py

test: lint lit pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/python tools/typecheck.py

lit: $(VENV)/test.stamp
	$(BIN)/lit test/

pytest: $(VENV)/test.stamp
	$(BIN)/python -m pytest test -n auto

clean:
	rm -rf build $(VENV)
