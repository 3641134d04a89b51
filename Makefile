# Everything a developer or CI runs. Needs Python 3.11 or newer, and no root; `make` alone explains itself.
# ARGS passes options on: make up ARGS="--port 7000", make test ARGS="-k wake".

.DEFAULT_GOAL := help
.PHONY: help up demo dev check fix test e2e simulate fuzz contract races faults recovery rolling soak flows bench profile requirements

VENV := .venv
BIN := $(VENV)/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$python -c '$(NEW_ENOUGH)' 2>/dev/null; then echo $$python; break; fi; done)
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadgroup
COMPILE := pip compile pyproject.toml --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --no-header --quiet

help: ## Show this list
	@grep -E '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name what; do \
		printf '  make %-14s %s\n' "$$name" "$$what"; done

up: $(VENV)/installed ## Run the whole engine here: stores, web, worker, connector, sweeper (ARGS="--help" for options)
	@exec $(BIN)/python manage.py up $(ARGS)

demo: $(VENV)/installed ## Put an actor to sleep and wake it, on the engine that `make up` runs
	@exec $(BIN)/python examples/demo.py $(ARGS)

dev: $(VENV)/installed-dev ## Install what development needs, and the git hook that checks each commit
	$(BIN)/pre-commit install

check: $(VENV)/installed-dev ## Lint, check formatting, types and the directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/installed-dev ## Mend what ruff can mend, and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(VENV)/installed-dev ## Run all tests: integration tests on PostgreSQL, then everything on SQLite
	TORPOR_TEST_STORE=postgresql $(PYTEST) tests/integration $(ARGS) || [ $$? = 5 ]  # 5: ARGS left none
	$(PYTEST) $(ARGS)

e2e: $(VENV)/installed-dev ## Run the end-to-end stories alone
	$(PYTEST) tests/e2e $(ARGS)

simulate: $(VENV)/installed-dev ## Run the simulator on more seeds: make simulate SEEDS="1 2 3"
	PYTHONHASHSEED=0 SIMULATE_SEEDS="$(or $(SEEDS),$(shell seq 1 100))" $(PYTEST) tests/simulation $(ARGS)

fuzz: $(VENV)/installed-dev ## Send the runner's socket random frames: make fuzz FRAMES=100000 SEED=2
	FUZZ_FRAMES="$(or $(FRAMES),100000)" FUZZ_SEED="$(or $(SEED),1)" $(BIN)/pytest -s tests/integration/runners/test_consumers_fuzz.py $(ARGS)

contract: $(VENV)/installed-dev ## Send the API 250 made-up requests per endpoint and phase, and judge every answer
	CONTRACT_EXAMPLES="$(or $(EXAMPLES),250)" $(BIN)/pytest -s tests/integration/orchestrator/test_api_contract.py $(ARGS)

races: $(VENV)/installed-dev ## Have 50 processes make one actor at once, 100 times, on both stores
	RACE_PROCESSES="$(or $(PROCESSES),50)" RACE_ROUNDS="$(or $(ROUNDS),100)" $(BIN)/pytest tests/e2e/test_races.py $(ARGS)

faults: $(VENV)/installed-dev ## Break an engine of real processes: make faults SEED="1 2" FAULTS=80 SECONDS=130 [KINDS="kill web,wipe valkey"]
	$(BIN)/python -m tests.faults $(or $(SEED),1) --faults $(or $(FAULTS),20) --seconds $(or $(SECONDS),100) \
		$(if $(KINDS),--kinds "$(KINDS)") $(ARGS)

recovery: $(VENV)/installed-dev ## How long until all are served again, one fault at a time: make recovery ROUNDS=3 [KINDS="kill web"]
	$(BIN)/python -m tests.faults $(or $(SEED),1) --recovery $(or $(ROUNDS),3) $(if $(KINDS),--kinds "$(KINDS)") $(ARGS)

rolling: $(VENV)/installed-dev ## Restart every process of an engine under load: make rolling RATE=200
	$(BIN)/python -m tests.faults --rolling $(or $(RATE),200) $(ARGS)

soak: $(VENV)/installed-dev ## Load an engine with faults now and then and show what grows: make soak MINUTES=30
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),3) $(ARGS)

flows: $(VENV)/installed-dev ## Lead an engine through both flows and draw what it records: docs/flows.md
	$(BIN)/python -m tests.e2e.record_flows

bench: $(VENV)/installed-dev ## Measure requests, wakes, storms and cold starts
	$(BIN)/python -m benchmarks $(ARGS)

profile: $(VENV)/installed-dev ## See where a process spends its time while a row of the table is measured
	$(BIN)/python -m benchmarks.profile $(ARGS)

requirements: ## Pin the newest versions that pyproject.toml allows, with their hashes
	tools=$$(mktemp -d) && trap 'rm -rf "$$tools"' EXIT && \
	$(PYTHON) -m venv "$$tools" && "$$tools/bin/pip" install --quiet uv && \
	"$$tools/bin/uv" $(COMPILE) --upgrade --extra uvicorn --output-file requirements.txt && \
	"$$tools/bin/uv" $(COMPILE) --upgrade --extra uvicorn --group dev --constraint requirements.txt --output-file requirements-dev.txt

# The stamps are newer than the files whose packages are installed.
$(VENV)/installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/installed-dev: requirements.txt requirements-dev.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r requirements.txt -r requirements-dev.txt
	@touch $(VENV)/installed $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Torpor needs Python 3.11 or newer; set PYTHON=/path/to/it" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "cannot create a virtual environment (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
