# Reading Hub. `make help` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HUB := $(BIN)/hub
.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- Setting up -------------------------------------------------------------------------------------------

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say PYTHON=python3.12 or the like")'
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing the locked packages (under a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock $(VENV)/.installed
	@echo "Installing the locked packages of the tests"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	@touch $@

.PHONY: install
install: $(VENV)/.installed ## The environment in .venv, from the lock file

.PHONY: lock
lock: $(VENV)/.installed-dev ## Resolve the lock files anew (after a change of pyproject.toml)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --group build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --group build --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

# --- Looking at it, no Docker needed ----------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.installed ## Sample readings from MongoDB to rollups, on embedded databases, in one go
	@$(HUB) demo

.PHONY: dev
dev: $(VENV)/.installed ## The same, then the Dagster UI on :3000 until Ctrl-C
	@$(HUB) dev

.PHONY: backfill
backfill: $(VENV)/.installed ## Load a range of days in one run: make backfill FROM=2026-01-01 TO=2026-01-31
	@$(HUB) backfill "$(FROM)" "$(TO)"

.PHONY: backup
backup: $(VENV)/.installed ## Take a backup, read it back, copy it off-site if BACKUP_URL is set
	@$(HUB) backup run

.PHONY: restore
restore: $(VENV)/.installed ## Restore a backup; asks first: make restore BACKUP=latest
	@$(HUB) restore --backup "$(or $(BACKUP),latest)"

.PHONY: drill
drill: $(VENV)/.installed ## Restore the newest backup into a scratch database, compare, drop it
	@$(HUB) backup drill

.PHONY: doctor
doctor: $(VENV)/.installed ## Is everything as it should be, and what to do if not
	@$(HUB) doctor

# --- The host-level GitOps agent (root) -------------------------------------------------------------------

.PHONY: install-agent uninstall-agent
install-agent: ## Install the GitOps agent on this host: make install-agent NAME=prod
	deploy/gitops/install-agent $(NAME)
uninstall-agent: ## Remove it; configuration, state, clones and the stack stay
	deploy/gitops/uninstall-agent

# --- Quality ----------------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.installed-dev ## Every test that this machine can run
	@$(BIN)/python -m pytest -n 2 tests

.PHONY: check
check: $(VENV)/.installed-dev ## Lint, format, types, and Dagster's own validation
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(HUB) run -- $(BIN)/dg check defs
	@$(HUB) run -- $(BIN)/dagster definitions validate

.PHONY: bench
bench: $(VENV)/.installed-dev ## The benchmarks; one JSON line each
	@$(BIN)/python -m tests.bench
