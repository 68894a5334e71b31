# fastrw: everything from a bare machine on. PYTHON=... picks the interpreter that VENV is made with (3.10 or later).
PYTHON ?= python3
TORCH  ?= torch==2.14.1
TRITON ?= triton==3.8.0
JOBS   ?= 2
VENV   ?= .venv
CARRY_PYTHON ?= python3.12

PY      := $(VENV)/bin/python
SET_UP  := .ci/set_up.py
VERSION := import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 10))
WANTED  := $(strip $(TORCH) $(TRITON))
SOURCES := setup.py $(shell find csrc -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' -o -name '*.h')
FORMATTED := $(filter-out setup.py,$(SOURCES)) $(wildcard tests/cuda_on_cpu/*.h tests/cuda_on_cpu/*.cpp)

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-every test-models lint format bench gpu gpu-carry build clean again

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## see the weights at work: real digits, wrong labels, under 90 seconds
	$(PY) -m fastrw demo

test: build ## every kind of test that this machine can run, in some minutes
	$(PY) -m pytest -n $(JOBS) --dist worksteal -q --durations=10

test-quick: build ## every op, backend, method and command once, under 90 seconds
	$(PY) -m pytest -n $(JOBS) --dist worksteal -q --tier quick

test-every: build ## all tests there are: every size, layout, build and pair of parameters
	$(PY) -m pytest -n $(JOBS) --dist worksteal -q --tier every --durations=10

test-models: build $(VENV)/.models ## real models of public packages (installs them beside the tested torch)
	$(PY) -m pytest -n $(JOBS) --dist worksteal -q tests/test_real_models.py tests/test_real_trainers.py --durations=10

lint: $(VENV)/.tools ## ruff, mypy on the public API, and clang-format, changing nothing
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(FORMATTED)

format: $(VENV)/.tools ## let ruff and clang-format rewrite what lint would refuse
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(FORMATTED)

bench: build ## every benchmark that this machine can run
	$(PY) -m bench
	$(PY) -m bench end_to_end --rounds 3

# A GPU machine's own torch is used and never moved, and nothing is installed: PYTHON with a torch in it, else .venv.
# OUT and MINUTES may come from the environment too.
gpu: ## on a GPU machine: build, then all that needs a GPU, in MINUTES=7.5, into OUT=bench/results
	@if $(PYTHON) -c 'import torch' 2> /dev/null; then python=$(PYTHON); \
	else $(MAKE) --quiet $(VENV)/.tools && python=$(PY) || exit; fi; \
	export PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}"; \
	$$python -m bench.gpu $(if $(MINUTES),--minutes '$(MINUTES)') $(if $(OUT),--out '$(OUT)')

gpu-carry: build ## the extension for a GPU machine without a network, and for CARRY_PYTHON=python3.12 there
	@$(PY) .ci/carry.py pack '$(CARRY_PYTHON)'

build: $(VENV)/.built ## .venv with the tested torch and triton, and the extension built into the source tree

clean: ## remove what was built; .venv stays
	rm -rf build dist *.egg-info fastrw/_C*.so fastrw/kernels $(VENV)/.built .pytest_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

$(VENV)/.built: $(VENV)/.tools $(SOURCES)
	@$(PY) $(SET_UP) build
	@touch $@

# The tested set, pinned, and the tools. The stamp says what was asked for: asked for something else, or where the
# environment's Python no longer starts, it is made again.
$(VENV)/.tools: pyproject.toml Makefile $(SET_UP)
	@version=$$($(PYTHON) -c '$(VERSION)' 2> /dev/null) || { echo "set-up: needs Python 3.10 or later," \
	"$(PYTHON) is $${version:-not there}: install it, or name another by make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) $(SET_UP) environment $(VENV)
	@rm -f $@
	@$(PY) $(SET_UP) install '$(TORCH)' '$(TRITON)'
	@echo '$(WANTED)' > $@

$(VENV)/.models: $(VENV)/.tools
	@$(PY) $(SET_UP) install --extra models '$(TORCH)' '$(TRITON)'
	@touch $@

ifneq ($(WANTED),$(shell $(PY) -c 'import pip; print(open("$(VENV)/.tools").read())' 2> /dev/null))
$(VENV)/.tools: again
endif
