# Every target works in a fresh clone with an empty environment: it makes .venv first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# Tools that come as wheels (buf among them) are found by scripts and tests alike.
export PATH := $(BIN):$(PATH)
# A name or path of the interpreter to build .venv with; empty: the first of 3.11 to 3.13 found.
PYTHON ?=
PYTEST_ARGS ?=
SERVE_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?=
# How long `make soak` lasts, and further options for it.
MINUTES ?= 10
SOAK_ARGS ?=

LOCK := requirements-dev.lock
PROJECTS := pyproject.toml src/onbelay_agent/pyproject.toml clients/python/pyproject.toml
LOCK_FLAGS := --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-header --quiet --no-emit-package onbelay-agent \
	--no-emit-package onbelay-client --no-emit-package onbelay-server

.PHONY: help setup lock gen demo serve test soak check format verify bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.ready ## Make .venv from the lock file (only when the lock has changed)

$(VENV)/.locked: $(LOCK)
	@python=$$(for name in $(or $(PYTHON),python3.13 python3.12 python3.11 python3 python); do \
	  command -v "$$name" >/dev/null 2>&1 || continue; \
	  "$$name" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' \
	    >/dev/null 2>&1 && { command -v "$$name"; break; }; \
	done; true); \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11, 3.12 or 3.13 with venv found; install one or say make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version) ($$python)"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes -r $(LOCK)
	@touch $@

$(VENV)/.ready: $(VENV)/.locked $(PROJECTS)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
	  --no-build-isolation -e src/onbelay_agent -e clients/python -e .
	@$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@

lock: ## Resolve the lock files anew (needs uv)
	uv pip compile pyproject.toml --extra cleanup --extra postgres $(LOCK_FLAGS) $(LOCK_ARGS) -o requirements.lock
	uv pip compile --group build -c requirements.lock $(LOCK_FLAGS) $(LOCK_ARGS) -o requirements-build.lock
	uv pip compile pyproject.toml --extra dev -c requirements.lock $(LOCK_FLAGS) $(LOCK_ARGS) -o $(LOCK)

gen: setup ## Generate gen/ from proto/
	scripts/gen.sh

demo: setup ## Run data-cleanup once on an embedded server, from input to report
	$(BIN)/onbelay demo $(DEMO_ARGS)

serve: setup ## Start the server (options in SERVE_ARGS)
	$(BIN)/onbelay serve $(SERVE_ARGS)

test: setup ## Run all tests (options in PYTEST_ARGS)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

soak: setup ## Kill the server every few seconds under load, MINUTES=10 long, and judge what is left
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(SOAK_ARGS)

check: setup ## Lint, types, import floors, file lengths, protobuf style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src clients/python
	$(BIN)/lint-imports --no-cache
	@long=$$(git ls-files -co --exclude-standard '*.py' '*.ts' '*.go' '*.sh' ':!gen' | while read -r file; do \
	  [ -f "$$file" ] || continue; lines=$$(wc -l < "$$file"); \
	  if [ "$$lines" -gt 350 ] && ! head -n 12 "$$file" | grep -q 'Longer than 350 lines:'; then \
	    echo "  $$file: $$lines lines"; fi; done); \
	if [ -n "$$long" ]; then echo "Files past 350 lines that do not say why:"; echo "$$long"; exit 1; fi
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

format: setup ## Put the code into its one form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

verify: setup ## Regenerating gen/ leaves no difference and no proto change breaks a client
	scripts/verify.sh

bench: setup ## Measure the event path against limits of this machine
	$(BIN)/onbelay bench $(BENCH_ARGS)

clean: ## Remove .venv and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
