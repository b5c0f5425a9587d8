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
test: deps ## Everything but the longest: lint, docs, sanity, unit, integration, molecule, samples of faults and e2e
	@tests/run

.PHONY: lint
lint: $(VENV)/.installed ## ruff, mypy, ansible-lint (production profile), yamllint, changelog
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

.PHONY: attacks
attacks: deps ## What a hostile worker, gateway or mirror tries, performed on real hosts: is it refused? (long)
	@tests/run attacks

.PHONY: tailnet
tailnet: deps ## Tailscale mode with headscale and tailscaled themselves: nodes, keys, switching, on real hosts (long)
	@tests/run tailnet

.PHONY: kubernetes
kubernetes: deps ## Manifests, rights and checks against a real Kubernetes API, newest and old; built once (Go, minutes)
	@$(BIN)/python tests/kubernetes/build.py && tests/run kubernetes

.PHONY: hosts
hosts: deps ## Every kind of gateway host with every kind of worker, from onboarding to offboarding (long) [B9_GATEWAYS="debian13" B9_WORKERS="newest"]
	@tests/run hosts

.PHONY: generate
generate: $(VENV)/.installed ## Write what is made from data: check tasks and pages, role READMEs, tables of the guides
	@$(BIN)/python tools/generate.py

.PHONY: faults
faults: deps ## Real faults on real hosts, in three settings: right root cause? does its remedy work? -> build/faults.json (long)
	@$(BIN)/python tests/faults/run.py --commands

.PHONY: mutants
mutants: deps ## Small changes to the code: do unit and integration tests notice? -> build/mutants.json (long) [AREA=health]
	@$(BIN)/python tests/mutants/run.py $(addprefix --area ,$(AREA))

.PHONY: chaos
chaos: deps ## What happens to a machine in a year, on real hosts: is it ready again? -> build/chaos.json (long)
	@$(BIN)/python tests/chaos/run.py

.PHONY: bench
bench: deps ## What things cost: the agent, a health check, a fleet (AREA=agent for one) -> build/bench.json
	@$(BIN)/python tests/bench/run.py $(addprefix --area ,$(AREA))

.PHONY: docs
docs: $(VENV)/.installed ## Build the documentation's site -> build/docs/html; warnings and dead links fail
	@$(BIN)/python tools/docs.py

.PHONY: dist
dist: $(VENV)/.installed ## Build artefact and agent bundles into dist/, the same bytes each time [REPOSITORY=URL RELEASE=1]
	@$(BIN)/python tools/dist.py $(if $(REPOSITORY),--repository $(REPOSITORY)) $(if $(RELEASE),--release)

.PHONY: dist-check
dist-check: $(VENV)/.installed ## What Galaxy checks of the artefact when it is published
	@$(BIN)/python tools/galaxy_import.py

.PHONY: matrix
matrix: deps ## Every ansible-core from 2.17 that a Python here runs -> build/matrix.json, docs/matrix.json (long) [VERSIONS="2.19 2.21"]
	@$(BIN)/python tools/matrix.py $(VERSIONS) && $(BIN)/python tools/generate.py

.PHONY: agent-lock
agent-lock: $(VENV)/.installed ## Fix versions and hashes of the agent's packages anew
	@$(BIN)/python agent_src/lock.py
