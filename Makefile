# The commands of this repository. `make` alone lists them.
# The first two work on a fresh Debian 12 or 13 with python3, git and make, as root or with sudo.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which Python makes .venv; empty: Debian's /usr/bin/python3, or the first on PATH that is 3.11 or later.
PYTHON ?=
# More options for pytest, such as PYTEST="-k journal -x".
PYTEST ?=
# What `make bench` ingests; bench/corpora.py lists all.
CORPORA ?= text-1000 mixed-1000

BIN := .venv/bin
IMAGE ?= ingestd:dev
# Another base image than Debian 13 of the public registry, for `make image`.
BASE ?=
say = @printf '\n%s\n' "$(1)"

.PHONY: help
help: ## list these commands
	@sed -n 's/^\([a-z-]*\): .*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do \
		printf '  make %-10s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: ## turn the sample transfer into a verified AIP; installs the little that it needs
	$(call say,Setting up)
	@PYTHON='$(PYTHON)' scripts/setup demo
	$(call say,Ingesting examples/demo-transfer)
	@INGESTD_DATA_DIR=.state/demo $(BIN)/ingestd ingest examples/demo-transfer --name "Lighthouse papers" --output demo-output
	$(call say,Next: ingest something of your own with  $(BIN)/ingestd ingest FOLDER_OR_ARCHIVE --output demo-output)

.PHONY: test
test: ## install everything that the tests need, then check and test everything
	$(call say,Setting up)
	@PYTHON='$(PYTHON)' scripts/setup test
	@$(MAKE) check
	$(call say,Tests)
	@$(BIN)/python -m pytest --quiet --numprocesses=auto --dist=loadfile $(PYTEST) || { \
		printf '\nOnce more, one after the other: what failed beside others (kills and deadlines need a processor in time)\n'; \
		$(BIN)/python -m pytest --quiet --last-failed --last-failed-no-failures=none $(PYTEST); }
	$(call say,Next: see it work with  make demo  or read CONTRIBUTING.md and add a step of your own)

.PHONY: chaos
chaos: ## kill workers, lose machines, trouble the broker, flood: minutes long (CHAOS_SEED=N repeats a run)
	$(call say,Setting up)
	@PYTHON='$(PYTHON)' scripts/setup test
	$(call say,Chaos)
	@CHAOS=long $(BIN)/python -m pytest --quiet --capture=no --show-capture=no --durations=0 tests/chaos $(PYTEST)

.PHONY: check
check: $(BIN)/ruff ## lint, format, types and import floors
	$(call say,Checks)
	@$(BIN)/ruff check --quiet . && echo '  ruff check: good'
	@$(BIN)/ruff format --quiet --check . && echo '  ruff format: good'
	@$(BIN)/mypy --no-error-summary && echo '  mypy: good'
	@$(BIN)/lint-imports > .state/lint-imports.log 2>&1 || { cat .state/lint-imports.log; exit 1; }
	@echo '  lint-imports: good'

.PHONY: format
format: $(BIN)/ruff ## let ruff format and mend what it can
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format .

.PHONY: schemas
schemas: $(BIN)/ingestd ## write the published contracts in schemas/ from the models
	@$(BIN)/ingestd schemas schemas/

.PHONY: bench
bench: $(BIN)/ruff ## time ingests of made corpora against this machine's floor
	@$(BIN)/python -m bench.run $(CORPORA)

.PHONY: image
image: ## build the container image with buildah (IMAGE=name:tag)
	@buildah bud --isolation chroot --format docker --tag $(IMAGE) \
		--build-arg REVISION="$$(git rev-parse HEAD 2> /dev/null)" $(if $(BASE),--build-arg BASE=$(BASE)) .

.PHONY: clean
clean: ## remove what these commands made, but no system packages
	@rm -rf .venv .state dist demo-output .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Where `make check` or `make bench` comes first: the Python part of what the tests need.
$(BIN)/ruff $(BIN)/ingestd:
	@PYTHON='$(PYTHON)' scripts/setup dev
