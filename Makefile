# Everything a person types here. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Where it is set, every command that a test starts would compile our code anew.
unexport PYTHONDONTWRITEBYTECODE
.DEFAULT_GOAL := help
.PHONY: help setup run chat test check image-check walk soak bench bench-policy bench-verify bench-stages bench-setup format lock generated sbom clean

help: ## list these targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything pinned (quick when nothing changed)

$(STAMP): pyproject.toml requirements/dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
	  { echo "chatkit-mint needs Python 3.11 to 3.14; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once, about a minute) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## start everything on this machine: service, identity provider, authority, Redis
	@$(BIN)/chatkit-mint dev $(ARGS)

chat: setup ## start the example ChatKit server of docs/examples/self-hosted, beside `make run`
	@exec env CHAT_DIR=$${CHAT_DIR:-var/chat} CHAT_REDIS_URL=$${CHAT_REDIS_URL:-unix://$(CURDIR)/var/dev/redis/redis.sock} \
	  $(BIN)/python docs/examples/self-hosted/server.py

test: setup ## run the tests (under five minutes on two cores)
	@$(BIN)/pytest -n 3 --dist loadfile $(ARGS)

check: setup ## formatter, linter, types, import rules, and that the packages installed go together
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pip check

image-check: ## run the Dockerfile where there is no Docker: its steps, command and health check
	@$(PYTHON) deploy/image_check.py

walk: setup ## follow README and docs/quickstart.md literally in a clean root: five minutes at most, downloads included
	@$(BIN)/python tests/soak/walk.py

soak: setup ## the long runs: kills, interleavings, frozen Redis, schemathesis (about half an hour); their figures are in docs/reliability.md
	$(BIN)/python tests/soak/crash.py --kills 300
	$(BIN)/python tests/soak/crash.py --kills 150 --replicas 2
	$(BIN)/python tests/soak/crash.py --kills 100 --in-process
	$(BIN)/python tests/soak/race.py --orders --rounds 20000 --seconds 480
	$(BIN)/pytest -m soak

bench-policy: setup ## how loading and deciding grow with the number of tenants, as ratios
	@$(BIN)/python tests/bench/policy.py

bench: setup bench-setup ## what a mint costs beside its peers, as ratios (a quarter of an hour; --only PART by ARGS)
	@$(BIN)/python tests/bench/mint.py $(ARGS)

bench-verify: setup ## what verifying sessions costs the example ChatKit server, as a share of its throughput without
	@$(BIN)/python tests/bench/verify.py $(ARGS)

bench-stages: setup bench-setup ## where a mint's time goes by stage, and what it costs in instructions and cache lines (six minutes)
	@$(BIN)/python tests/bench/stages.py $(ARGS)

bench-setup: ## install the peers that `make bench` compares with (.venv-bench; Express where Node is)
	@PYTHON=$(PYTHON) tests/bench/setup

format: setup ## format the code and mend what the linter can
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

lock: setup ## pin every dependency again, with hashes, naming no index
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" pyproject.toml -o requirements/runtime.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" pyproject.toml --extra embedded-redis --extra otel --group dev -c requirements/runtime.lock -o requirements/dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --custom-compile-command "make lock" tests/bench/requirements.in -o tests/bench/requirements.txt

generated: setup ## write again what is made from other files: docs/licences.md, docs/metrics.md, the PrometheusRule, dashboards
	@$(BIN)/python requirements/licences.py
	@$(BIN)/python deploy/prometheus_rule.py
	@$(BIN)/python -m deploy.grafana.dashboards
	@$(BIN)/python docs/metrics_table.py

sbom: setup ## write dist/sbom.cdx.json: what the service runs with, with hashes (CycloneDX)
	@mkdir -p dist
	@$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/sbom.cdx.json requirements/runtime.lock

clean: ## remove what was made here
	rm -rf $(VENV) .venv-bench tests/bench/peers/express/node_modules tests/browser/node_modules var dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
