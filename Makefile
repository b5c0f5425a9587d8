# One command per task of a developer. `make help` lists them.
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
help: ## List these commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	touch $@

.PHONY: deps
deps: ## Install what tests and demo need (Debian packages as root, Python packages in .venv)
	@$(TESTBED) deps
	@$(MAKE) --no-print-directory $(VENV)/.installed

.PHONY: demo
demo: deps ## Build a gateway host and two workers here, and onboard them (Debian, root)
	@tests/testbed/demo

.PHONY: demo-down
demo-down: ## Remove the demo's hosts
	@$(TESTBED) down

.PHONY: test
test: deps ## All tests but the long ones, which are sampled: packages, kubernetes, faults, e2e, attacks
	@tests/run

.PHONY: lint
lint: $(VENV)/.installed ## ruff, mypy, vermin, ansible-lint (production profile), yamllint, changelog
	@tests/run lint

.PHONY: sanity
sanity: $(VENV)/.installed ## ansible-test sanity on the installed collection
	@tests/run sanity

.PHONY: unit
unit: $(VENV)/.installed ## Unit tests: fast, without hosts
	@tests/run unit

.PHONY: integration
integration: deps ## Test modules, agent and gateway double with a real Redis
	@tests/run integration

.PHONY: packages
packages: deps ## Sets of packages with the dnf and rpm of RHEL 9, in a container: holds, streams, downgrades, wrong keys
	@tests/run packages

.PHONY: molecule
molecule: deps ## Onboarding on real hosts: check, converge, idempotence, verify
	@tests/run molecule

.PHONY: e2e
e2e: deps ## End-to-end tests on real hosts: killed runs, reboots, refusals, secrets, the artefact (long)
	@tests/run e2e

.PHONY: attacks
attacks: deps ## Attacks by a hostile worker, gateway or mirror on real hosts, which must be refused (long)
	@tests/run attacks

.PHONY: tailnet
tailnet: deps ## Tailscale mode with headscale and tailscaled on real hosts (long)
	@tests/run tailnet

.PHONY: kubernetes
kubernetes: deps ## Manifests, rights and checks with a real Kubernetes API, newest and old; built once (Go, minutes)
	@$(BIN)/python tests/kubernetes/build.py && tests/run kubernetes

.PHONY: hosts
hosts: deps ## Each kind of gateway host with each kind of worker, from onboarding to offboarding (long) [B9_GATEWAYS="debian13" B9_WORKERS="newest"]
	@tests/run hosts

.PHONY: generate
generate: $(VENV)/.installed ## Write generated files: check tasks and pages, role READMEs, tables of the guides
	@$(BIN)/python tools/generate.py

.PHONY: faults
faults: deps ## Break real hosts: is the right root cause found, does its remedy work? -> build/faults.json (long) [SETTINGS=late]
	@$(BIN)/python tests/faults/run.py $(if $(SETTINGS),--settings $(SETTINGS) --healthy 0,--commands)

.PHONY: mutants
mutants: deps ## Mutation tests: do unit and integration tests notice small changes? -> build/mutants.json (long) [AREA=health NUMBER=30]
	@$(BIN)/python tests/mutants/run.py $(addprefix --area ,$(AREA)) $(addprefix --number ,$(NUMBER))

.PHONY: chaos
chaos: deps ## Reboots, outages and moved clocks on real hosts: is the machine ready again? -> build/chaos.json (long)
	@$(BIN)/python tests/chaos/run.py

.PHONY: bench
bench: deps ## Measure the agent, a health check and a fleet -> build/bench.json [AREA=agent]
	@$(BIN)/python tests/bench/run.py $(addprefix --area ,$(AREA))

.PHONY: docs
docs: $(VENV)/.installed ## Build the documentation -> build/docs/html; warnings and dead links fail
	@$(BIN)/python tools/docs.py

.PHONY: dist
dist: $(VENV)/.installed ## Build collection and agent bundles into dist/, reproducibly [REPOSITORY=URL RELEASE=1]
	@$(BIN)/python tools/dist.py $(if $(REPOSITORY),--repository $(REPOSITORY)) $(if $(RELEASE),--release)

.PHONY: dist-check
dist-check: $(VENV)/.installed ## Run Galaxy's import checks on the artefact
	@$(BIN)/python tools/galaxy_import.py

.PHONY: matrix
matrix: deps ## Test every supported ansible-core -> build/matrix.json, docs/matrix.json (long) [VERSIONS="2.19 2.21"]
	@$(BIN)/python tools/matrix.py $(VERSIONS) && $(BIN)/python tools/generate.py

.PHONY: agent-lock
agent-lock: $(VENV)/.installed ## Pin the versions and hashes of the agent's packages again
	@$(BIN)/python agent_src/lock.py
