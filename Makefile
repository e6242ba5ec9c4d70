# Everything that can be done here, by name; `make` alone lists it.
# Settings: PYTHON=python3.12, VENV=.venv, WORKERS=2, DEVICE=cpu, and TORCH_INDEX=<index of CPU builds> where the default
# index would bring the much larger CUDA build of torch.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
TORCH ?= 2.13.0
TORCH_INDEX ?=
DEVICE ?= cpu

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PINS := build/pins
SITE := site

# The models are small: a second thread a process costs more than it brings, and results must not depend on it.
export OMP_NUM_THREADS := 1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## create the virtual environment with the pinned dependencies

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1):" \
			"name a newer one, for example make PYTHON=python3.12 install" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet -c constraints.txt --index-url $(TORCH_INDEX) torch)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: serve
serve: install ## build the site and serve it on http://127.0.0.1:8000
	$(BIN)/accelgen docs serve

.PHONY: docs
docs: install ## build the site strictly, then check what was built
	$(BIN)/accelgen docs build
	$(BIN)/accelgen docs check

.PHONY: offline
offline: install ## the whole site as a zip to unpack and open in a browser, without a server
	OFFLINE=true $(BIN)/python -m mkdocs build --strict --quiet --no-directory-urls --site-dir build/offline
	cd build && rm -f offline.zip && ../$(BIN)/python -m zipfile -c offline.zip offline

.PHONY: test
test: install ## run everything that can fail: taxonomy, tests, doctests, strict build of the site
	$(BIN)/accelgen validate
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: check
check: install ## lint, formatting, types, spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

.PHONY: mutants
mutants: install ## plant known bugs one by one, or RANDOM=100 SEED=1 random ones; METHOD=id: of one method, module or room
	$(BIN)/python -m tests.mutation --workers $(WORKERS) \
		$(if $(RANDOM),--random $(RANDOM)) $(if $(SEED),--seed $(SEED)) $(if $(METHOD),--method $(METHOD))

.PHONY: bench
bench: install ## measure every method against its baseline and store what the site shows (DEVICE=cuda: on a GPU)
	$(BIN)/accelgen bench --device $(DEVICE) --store

.PHONY: zoo
zoo: install ## list the trained models and check their hashes
	$(BIN)/accelgen zoo list

.PHONY: pins
pins: ## choose the newest versions that work together and write constraints.txt
	rm -rf $(PINS)
	$(PYTHON) -m venv $(PINS)
	$(PINS)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==$(TORCH)
	$(PINS)/bin/python -m pip install --quiet -e '.[dev]' torch==$(TORCH)
	{ echo '# Written by `make pins`. Versions for every platform: local labels such as +cpu are left out.'; \
		$(PINS)/bin/python -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//'; } > $(PINS)/constraints.txt
	mv $(PINS)/constraints.txt constraints.txt
	rm -rf $(PINS)

.PHONY: clean
clean: ## remove what was built; the virtual environment stays
	rm -rf $(SITE) build .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find accelgen reference_impls tests -name __pycache__ -prune -exec rm -rf {} +
