# Reading Hub. `make help` lists the targets.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HUB := $(BIN)/hub
.DEFAULT_GOAL := help

# Compose runs in its own folder, as the GitOps agent has it. A changed file behind a mount changes a label: without it,
# Compose would leave the container as it is. So it is with the secrets.
COMPOSE := SECRETS=$$(cat .secrets/.stamp 2>/dev/null) $(foreach name,grafana loki promtail alloy gateway,CONTENT_$(shell echo $(name) | tr a-z A-Z)=$$(find compose/$(name) -type f -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-12)) docker compose --env-file .env --file compose/compose.yaml
# `make init` has been here: the daily commands run in the stack's code location.
STACK := $(shell grep -qs '^POSTGRES_PASSWORD=.' .env && echo yes)
RUN_HUB := $(if $(STACK),$(COMPOSE) exec $(shell test -t 0 || echo -T) dagster-code hub,$(HUB))
HUB_NEEDS := $(if $(STACK),,$(VENV)/.installed)
BACKUP_FOLDER := $(or $(BACKUP_DIR),$(shell sed -n 's/^BACKUP_DIR=//p' .env 2>/dev/null),backups)

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
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --group build --extra s3 --extra age --extra k8s pyproject.toml -c requirements.lock -o requirements-image.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header --no-annotate --group build --group dev pyproject.toml -c requirements.lock -o requirements-dev.lock

# --- Looking at it, no Docker needed ----------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.installed ## Sample readings from MongoDB to rollups, on embedded databases, in one go
	@$(HUB) demo

.PHONY: dev
dev: $(VENV)/.installed ## The same, then the Dagster UI on :3000 until Ctrl-C
	@$(HUB) dev

# --- Every day; in the stack where `make init` has set one up, on this machine otherwise ---------------------

.PHONY: backfill
backfill: $(HUB_NEEDS) ## Load a range of days in one run: make backfill FROM=2026-01-01 TO=2026-01-31
	@$(RUN_HUB) backfill "$(FROM)" "$(TO)"

.PHONY: backup
backup: $(HUB_NEEDS) ## Take a backup, read it back, copy it off-site if BACKUP_URL is set
	@$(RUN_HUB) backup run

.PHONY: restore
restore: $(HUB_NEEDS) ## Restore a backup; asks first: make restore BACKUP=latest
	@$(RUN_HUB) restore --backup "$(or $(BACKUP),latest)"

.PHONY: drill
drill: $(HUB_NEEDS) ## Restore the newest backup into a scratch database, compare, drop it
	@$(RUN_HUB) backup drill

.PHONY: doctor
doctor: $(HUB_NEEDS) ## Is everything as it should be, and what to do if not
	@$(RUN_HUB) doctor

# --- The stack (Docker Compose) ------------------------------------------------------------------------------

.PHONY: init
init: ## Write .env with generated secrets for the stack; what is there stays
	@compose/init.sh

.PHONY: up
up: prepare ## Start the stack, or bring it to what the files say
	@$(COMPOSE) up --detach --wait --wait-timeout 600 --remove-orphans
	@echo "Grafana http://127.0.0.1:3001 (admin, GF_SECURITY_ADMIN_PASSWORD of .env) · Dagster http://127.0.0.1:3000 · API http://127.0.0.1:8085/docs"

# Volumes are external, so that no command of Compose can remove them; the backup folder belongs to the image's user. The secrets
# of .env go to files, for the owner of this folder and the services that name them (hub/secret_files.py).
.PHONY: prepare
prepare:
	@test -s .env || { echo "There is no .env: run make init first."; exit 1; }
	@test -n "$$MONGO_URI$$MONGO_PASSWORD" || grep -qE '^(MONGO_URI|MONGO_PASSWORD)=.' .env || { echo "MONGO_URI is not set: set it in .env, or run make init for a MongoDB of the stack."; exit 1; }
	@for name in $$($(COMPOSE) config --services 2>/dev/null | grep -qx gateway && echo GATEWAY_HOST GATEWAY_SECRET); do test -n "$${!name}" || grep -qE "^$$name=." .env || { echo "$$name is not set: the profile gateway needs it. GATEWAY_HOST is the name of this machine for others (docs/gateway.md); make init writes GATEWAY_SECRET."; exit 1; }; done
	@$(COMPOSE) config --quiet
	@$(COMPOSE) build
	@for volume in $$($(COMPOSE) --profile '*' config --volumes); do docker volume create "$$volume" >/dev/null; done
	@install -d -m 0700 .secrets
	@model=$$($(COMPOSE) config --format json) && printf %s "$$model" | docker run --rm --interactive --network none --user 0 --cap-drop ALL --cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --volume "$(abspath .secrets):/secrets" reading-hub:latest python -m hub.secret_files /secrets
	@mkdir -p "$(BACKUP_FOLDER)"
	@docker run --rm --network none --user 0 --cap-drop ALL --cap-add CHOWN --volume "$(abspath $(BACKUP_FOLDER)):/backups" --volume gateway_users:/gateway reading-hub:latest chown 10001:10001 /backups /gateway

.PHONY: down
down: ## Stop the stack; the data stays
	@$(COMPOSE) --profile '*' down

.PHONY: restart
restart: ## Restart the stack, or one service: make restart SERVICE=grafana
	@$(COMPOSE) restart $(SERVICE)

.PHONY: logs
logs: ## Follow the logs, of one service: make logs SERVICE=dagster-code
	@$(COMPOSE) logs --follow --tail 100 $(SERVICE)

.PHONY: ps
ps: ## The services of the stack and how they are
	@$(COMPOSE) ps --all

.PHONY: upgrade
upgrade: ## After git pull: back up, then bring images, schema and services to this version
	@$(RUN_HUB) backup run
	@$(COMPOSE) pull --ignore-buildable --quiet
	@$(MAKE) --no-print-directory up

.PHONY: gateway-user
gateway-user: ## Let somebody in by the gateway: make gateway-user NAME=anna (ACTION=remove: no more)
	@$(RUN_HUB) gateway user "$(or $(ACTION),add)" "$(NAME)"
	@$(COMPOSE) exec -T gateway caddy reload --config /etc/caddy/Caddyfile 2>/dev/null || echo "The gateway does not run: it will know when it starts."

.PHONY: smoke
smoke: ## Send a reading through the running stack: MongoDB, Dagster, rollup, Grafana, Loki
	@sed -n 's/^GF_SECURITY_ADMIN_PASSWORD=//p' .env | $(COMPOSE) exec -T dagster-code hub smoke$(if $(YES), --yes)

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

.PHONY: dashboards
dashboards: $(VENV)/.installed ## Build Grafana's dashboards from compose/grafana/build
	@$(BIN)/python -m compose.grafana.build

.PHONY: bench
bench: $(VENV)/.installed-dev ## The benchmarks; one JSON line each
	@$(BIN)/python -m tests.bench
