# Everything a contributor or CI calls. `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# A gateway that compiles all it imports takes three seconds to start instead of one, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

START := $(shell date +%s)
RUN := .venv/bin/python
PORT ?= 8080
ARGS ?=

took = echo "$(1) took $$(( $$(date +%s) - $(START) )) s"

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

## Set-up ----------------------------------------------------------------------------------------

.PHONY: setup
setup: ## Make the environments of the demo: .venv and Triton's own
	@tools/setup-venv.sh bare
	@$(MAKE) -j2 setup-venv setup-triton

.PHONY: setup-venv
setup-venv:
	@tools/setup-venv.sh run

.PHONY: setup-dev
setup-dev: ## Make the environments of the tests
	@tools/setup-venv.sh bare
	@$(MAKE) -j2 setup-venv-dev setup-triton

.PHONY: setup-venv-dev
setup-venv-dev:
	@tools/setup-venv.sh dev

# Fails only where a real Triton could run and its environment cannot be made; elsewhere it says why and goes on.
.PHONY: setup-triton
setup-triton:
	@$(RUN) -m enginehouse.local.install_triton

## Run -------------------------------------------------------------------------------------------

.PHONY: demo
demo: setup ## Set up, start the whole stack, show one streamed answer; Ctrl-C stops it (PORT=…, ARGS=…)
	@$(RUN) -m enginehouse up --demo --since $(START) --port $(PORT) $(ARGS)

## Prove -----------------------------------------------------------------------------------------

.PHONY: test
# Four at a time, whatever the cores: much of their time is waiting.
test: setup-dev ## Set up, lint, type-check and run every test, with real Triton and real Redis
	@$(MAKE) check
	@mark="HOUSE_TEST_RUN=$$$$-$(START)"; status=0; \
	if [ -n "$(ARGS)" ]; then \
	    env "$$mark" $(RUN) -m pytest $(ARGS) || status=$$?; \
	else \
	    env "$$mark" $(RUN) -m pytest -n 4 || status=$$?; \
	fi; \
	$(RUN) tools/left_running.py "$$mark" || status=1; \
	$(call took,make test); \
	exit $$status

.PHONY: check
check: setup-dev ## Lint, types, import rules and a quick micro-benchmark
	@$(MAKE) -j2 --output-sync lint types imports
	@$(MAKE) bench-quick

.PHONY: lint
lint:
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check --quiet .

.PHONY: types
types:
	@$(RUN) -m mypy

.PHONY: imports
imports:
	@.venv/bin/lint-imports

.PHONY: bench-quick
bench-quick:
	@$(RUN) -m bench.micro --quick

.PHONY: bench
bench: setup-dev ## Compare the gateway with a direct call and a plain relay, on one core
	@$(RUN) -m bench

.PHONY: bench-embeddings
bench-embeddings: setup-dev ## Compare joined embedding inputs with one by one, on a real Triton
	@$(RUN) -m bench.embeddings

.PHONY: conformance
conformance: setup-dev ## Ask every feature of every lane; writes docs/conformance.md
	@$(RUN) -m tests.conformance $(ARGS)

.PHONY: clients
clients: setup-dev ## Let each of five SDKs hold a conversation with the stack (makes .clients first)
	@tools/setup-beside.sh clients
	@$(RUN) -m tests.clients $(ARGS)

.PHONY: batch-jobs
batch-jobs: setup-dev ## Run a batch job while its gateways are killed: is every row recorded once?
	@$(RUN) -m bench.batch_jobs $(ARGS)

.PHONY: live-router
live-router: setup-dev ## Try the router live: three gateways before a real Triton with paced engines (6 min)
	@$(RUN) -m bench.live_router $(ARGS)

.PHONY: chaos
chaos: setup-dev ## Kill Redis, controller, workers, Tritons while clients stream, let clients leave: is each promise kept? (1 min)
	@$(RUN) -m bench.chaos $(ARGS)

.PHONY: replay
replay: setup-dev ## Compare routing, autoscaling and packing with oracles, in replay; at most 30 minutes
	@status=0; \
	$(RUN) -m router.replay.table --out bench/out/replay $(ARGS) || status=1; \
	$(MAKE) replay-scaling || status=1; \
	$(MAKE) replay-packing || status=1; \
	exit $$status

.PHONY: replay-scaling
replay-scaling: setup-dev ## Compare the autoscaler with others, and with one that knows the future
	@$(RUN) -m controller.replay.table --out bench/out/replay $(ARGS)

.PHONY: replay-packing
replay-packing: setup-dev ## Pack 162 models on a handful of GPUs, beside LRU, LFU and one that knows the future
	@$(RUN) -m bench.replay.packing_table --out bench/out/replay $(ARGS)

.PHONY: engines
engines: setup-dev ## Take a checkpoint to a promoted engine on a real Triton, while clients stream
	@$(RUN) -m bench.engines $(ARGS)

.PHONY: rollouts
rollouts: setup-dev ## Roll out engines, worse ones and clean ones; ARGS: --quick, --faults, --clean 20
	@$(RUN) -m bench.rollouts $(ARGS)

.PHONY: scale
scale: setup-dev ## Scale live: a tenfold step, to zero and back, leaders killed, ten models on room for three (20 min)
	@$(RUN) -m bench.scale $(ARGS)

.PHONY: builder-kills
builder-kills: setup-dev ## Kill builders fifty times: is every engine published once and whole?
	@$(RUN) -m bench.builder_kills $(ARGS)

.PHONY: compose-check
compose-check: setup-dev ## Build the containers, bring them up, use, scale and kill each of them, take them down
	@$(RUN) -m bench.containers $(ARGS)

.PHONY: boards-check
boards-check: setup-dev ## Ask a real Prometheus for everything that the dashboards show (needs Debian's prometheus)
	@$(RUN) -m bench.boards $(ARGS)

.PHONY: planner
planner: setup-dev ## Plan the examples by measured kernel tables (makes .planner first, 850 MB)
	@tools/setup-beside.sh planner
	@.planner/bin/python -m bench.planner $(ARGS)

## Keep ------------------------------------------------------------------------------------------

.PHONY: format
format: ## Format and fix what can be fixed
	@$(RUN) -m ruff check --fix .
	@$(RUN) -m ruff format .

COMPILE = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-package enginehouse

.PHONY: lock
lock: ## Make the lock files anew from pyproject.toml
	@command -v uv >/dev/null || { echo "error: uv is not on PATH" >&2; echo "  pip install uv" >&2; exit 1; }
	@$(COMPILE) pyproject.toml requirements/build.in --extra dev -o requirements/dev.lock
	@$(COMPILE) pyproject.toml requirements/build.in --extra local -c requirements/dev.lock -o requirements/run.lock
	@$(COMPILE) pyproject.toml requirements/build.in --extra local --extra docker --extra k8s \
		-c requirements/dev.lock -o requirements/image.lock
	@$(COMPILE) --no-deps requirements/triton.in -o requirements/triton.lock
	@$(COMPILE) requirements/clients.in -o requirements/clients.lock
	@$(COMPILE) pyproject.toml requirements/build.in --extra planner -c requirements/dev.lock \
		-o requirements/planner.lock

.PHONY: clean
clean: ## Remove environments and caches
	rm -rf .venv .triton .clients .planner .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench/build bench/out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
