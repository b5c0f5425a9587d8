# One command per habit. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
TESTBED := $(PYTHON) tests/testbed/testbed.py
COLLECTION := collections/ansible_collections/beta9/workers
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/collections
export PATH := $(BIN):$(PATH)

.PHONY: help
help: ## List the habits
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

.PHONY: deps
deps: ## Install what tests and demo need (Debian packages as root, Python packages into .venv)
	@$(TESTBED) deps
	@$(MAKE) --no-print-directory $(VENV)/.installed

.PHONY: demo
demo: deps ## From nothing to two ready machines on this computer (Debian, root)
	@tests/testbed/demo

.PHONY: demo-down
demo-down: ## Remove the demo's hosts
	@$(TESTBED) down

.PHONY: test
test: deps ## Everything: lint, sanity, unit, integration, molecule, a sample of the faults, e2e
	@tests/run

.PHONY: lint
lint: $(VENV)/.installed ## ansible-lint (production profile), yamllint, changelog
	@tests/run lint

.PHONY: sanity
sanity: $(VENV)/.installed ## ansible-test sanity on an installed copy
	@tests/run sanity

.PHONY: unit
unit: $(VENV)/.installed ## Fast tests without hosts
	@tests/run unit

.PHONY: integration
integration: deps ## Modules, agent and gateway double against a real Redis
	@tests/run integration

.PHONY: molecule
molecule: deps ## The whole path on real hosts: check, converge, idempotence, verify
	@tests/run molecule

.PHONY: e2e
e2e: deps ## Killed runs, reboots, refusals, canary tokens, the artefact: on real hosts (long)
	@tests/run e2e

.PHONY: generate
generate: $(VENV)/.installed ## Write what is made from the catalogue of checks: tasks, pages, coverage of the guide
	@$(BIN)/python tools/generate.py

.PHONY: faults
faults: deps ## Real faults on real hosts: is the right root cause named? -> build/faults.json (long)
	@$(BIN)/python tests/faults/run.py

.PHONY: bench
bench: deps ## What things cost: the agent, a health check, a fleet (AREA=agent for one) -> build/bench.json
	@$(BIN)/python tests/bench/run.py $(addprefix --area ,$(AREA))

.PHONY: dist
dist: $(VENV)/.installed ## Build the collection artefact into dist/
	@mkdir -p dist && $(BIN)/ansible-galaxy collection build --force --output-path dist .

.PHONY: agent-lock
agent-lock: $(VENV)/.installed ## Fix versions and hashes of the agent's packages anew
	@$(BIN)/python agent_src/lock.py
