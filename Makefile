# fastrw: everything from a bare machine on. PYTHON=... picks the interpreter that .venv is made with (3.10 or later).
PYTHON ?= python3
TORCH  ?= torch==2.13.0
TRITON ?= triton==3.7.1
JOBS   ?= 2

VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check
SOURCES := setup.py $(shell find csrc -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
FORMATTED := $(filter-out setup.py,$(SOURCES)) $(wildcard tests/cuda_on_cpu/*.h tests/cuda_on_cpu/*.cpp)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench gpu build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## see the weights at work: real digits, wrong labels, under 90 seconds
	$(PY) -m fastrw demo

test: build ## every test that this machine can run
	$(PY) -m pytest -n $(JOBS) -q

lint: $(VENV)/.tools ## ruff and clang-format, changing nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/clang-format --dry-run -Werror $(FORMATTED)

format: $(VENV)/.tools ## let ruff and clang-format rewrite what lint would refuse
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(FORMATTED)

bench: build ## every benchmark that this machine can run
	$(PY) -m bench
	$(PY) -m bench end_to_end --rounds 3

# A GPU machine's own torch is used and never moved: PYTHON with a torch in it, else .venv.
gpu: ## on a GPU machine: build, GPU tests, compute-sanitizer, all benchmarks, results under bench/results
	@if $(PYTHON) -c 'import torch' 2> /dev/null; then python=$(PYTHON); \
	else $(MAKE) --quiet $(VENV)/.tools && python=$(PY); fi && \
	$$python -m pip install --quiet --no-build-isolation --no-deps -e . && \
	$$python -m bench.gpu

build: $(VENV)/.built ## .venv with the tested torch and triton, and the extension built into the source tree

clean: ## remove what was built; .venv stays
	rm -rf build dist *.egg-info fastrw/_C*.so $(VENV)/.built .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

# The tested set, pinned, and the extras; made again when either changes.
$(VENV)/.tools: pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo 'make: needs Python 3.10 or later: say make PYTHON=/path/to/python3'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	{ echo 'make: needs the modules venv and ensurepip of Python (Debian, Ubuntu: the package python3-venv)'; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || \
	{ echo 'make: needs the C headers of Python (Debian, Ubuntu: the package python3-dev)'; exit 1; }
	@$${CXX:-c++} --version > /dev/null 2>&1 || \
	{ echo 'make: needs a C++ compiler: g++ 10 or later (Debian, Ubuntu: the package g++), or CXX=...'; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo 'installing $(TORCH), $(TRITON) and the tools into $(VENV): some minutes the first time'
	$(PIP) 'setuptools>=77' wheel '$(TORCH)' '$(TRITON)'
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
