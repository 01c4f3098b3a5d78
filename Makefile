# The words a newcomer can guess. `make demo` and `make test` set themselves up.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install flower protos lock lint format test contract-tests mutation-tests process-tests other-tests demo up clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## Create .venv with everything pinned

# torch comes by its own line: which build is right (CPU, CUDA) is the machine's choice.
$(STAMP): pyproject.toml requirements/lock.txt
	@echo "Setting up $(VENV) (about two minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/lock.txt
	@$(BIN)/python -m pip install --quiet torch==2.13.0
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -c "import torch, lorikeet, services.cli"
	@touch $@

FLOWER := .venv-flower

flower: $(FLOWER)/.installed ## Create .venv-flower, which federated training runs in

$(FLOWER)/.installed: requirements/flower.txt
	@echo "Setting up $(FLOWER) (about a minute)"
	@$(PYTHON) -m venv $(FLOWER)
	@$(FLOWER)/bin/python -m pip install --quiet --no-deps --require-hashes -r requirements/flower.txt
	@$(FLOWER)/bin/python -m pip install --quiet --no-deps torch==2.13.0
	@$(FLOWER)/bin/python -c "import flwr, torch, transformers"
	@touch $@

protos: $(STAMP) ## Regenerate the code of every .proto, after a check for breaking changes
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/image.binpb
	$(BIN)/python scripts/generate_protos.py
	$(BIN)/buf build -o protos/image.binpb

lock: $(STAMP) ## Resolve requirements/lock.txt anew
	$(BIN)/uv pip compile pyproject.toml requirements/also.txt --extra demo --extra dev \
	  --override requirements/overrides.txt --universal --generate-hashes \
	  --python-version 3.11 --no-header --quiet --upgrade -o requirements/lock.txt
	$(BIN)/uv pip compile requirements/flower.in --override requirements/flower-overrides.txt \
	  --universal --generate-hashes --python-version 3.11 --no-header --quiet --upgrade \
	  -o requirements/flower.txt

lint: $(STAMP) ## Style, types, import rules and the contract
	$(BIN)/ruff format --check services scripts tests bench examples migrations
	$(BIN)/ruff check services scripts tests bench examples migrations
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/image.binpb

format: $(STAMP) ## Format and fix what can be fixed
	$(BIN)/ruff format services scripts tests bench examples migrations
	$(BIN)/ruff check --fix services scripts tests bench examples migrations

MUTATIONS := tests/contract/test_mutations.py

test: $(STAMP) ## Set up, lint, and run every test
	@$(MAKE) --no-print-directory -j4 lint mutation-tests process-tests other-tests contract-tests

# Parts that run at once: tests wait for processes, or use one core.
contract-tests:
	$(BIN)/pytest tests/contract --ignore=$(MUTATIONS)

mutation-tests:
	$(BIN)/pytest $(MUTATIONS)

process-tests:
	$(BIN)/pytest tests/integration tests/e2e

other-tests:
	$(BIN)/pytest --ignore=tests/contract --ignore=tests/integration --ignore=tests/e2e tests

demo: $(STAMP) ## Start the suite, ask one question of three models in one batch, stop
	@$(BIN)/lorikeet demo

up: $(STAMP) ## Start the suite and leave it running until Ctrl-C
	@$(BIN)/lorikeet up

clean: ## Remove the virtual environment and the suite's local data
	rm -rf $(VENV) $(FLOWER) .lorikeet
