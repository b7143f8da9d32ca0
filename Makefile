# Every target makes .venv by itself. Needs Python 3.11 or later, make and git.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
NODE := .venv/node
RIVALS := .venv/rivals
TRAINING := .venv-training/installed

.PHONY: help install demo sandbox web check format test chaos figures bench truth test-postgres check-photos check-supabase check-training check-web has-chromium clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv with the command `watcher` in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing Watcher and what it is built and tested with into .venv, a minute or two the first time:" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --progress-bar off --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' >&2
	@touch $@

demo: install  ## publish one row on a local Supabase and Hub, or on SUPABASE_URL if that is set (PHOTOS=dir, JSON=1, KEEP=1, ERASE=1, TRAIN=1)
	@exec $(BIN)/watcher demo $(if $(PHOTOS),--photos '$(PHOTOS)') $(if $(JSON),--json) $(if $(KEEP),--keep) $(if $(ERASE),--erase) $(if $(TRAIN),--train)

sandbox: install  ## a Supabase and a Hub on this machine, until Ctrl-C (PORT=54321, HUB_PORT=54380, DATA=dir)
	@exec $(BIN)/watcher sandbox $(if $(PORT),--port '$(PORT)') $(if $(HUB_PORT),--hub-port '$(HUB_PORT)') $(if $(DATA),--data '$(DATA)')

web: install $(NODE)  ## the page in examples/web, with a sandbox and a daemon, until Ctrl-C (network the first time)
	@$(BIN)/python -m tests.checks.web.serve

check: install  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## format the code as `check` requires
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install  ## all tests, on Postgres 18, without a network (ONLY='engine hub/test_client.py')
	@echo "$(if $(ONLY),Of tests/: $(ONLY),All tests take about 25 minutes on two cores; those of one package: make test ONLY=engine)"
	$(BIN)/pytest -n 2 --dist loadfile $(if $(ONLY),$(addprefix tests/,$(ONLY)),--cov)

chaos: install  ## kill, freeze and cut off daemons at random, then compare all rows and repos (RUNS=20, SEED=1, JOBS=1, LASTS=11)
	@$(BIN)/python -m tests.checks.chaos --runs $(or $(RUNS),20) --seed $(or $(SEED),1) --jobs $(or $(JOBS),1) --lasts $(or $(LASTS),11)

figures: install  ## measure the promises about crashes, freezes and outages (ONLY='takeover sigterm', MINUTES=55 for trainings)
	@$(BIN)/python -m tests.checks.figures $(ONLY)

bench: install $(RIVALS)  ## measure a row's cost, compared with other queues (ONLY='latency rate')
	@$(BIN)/python -m bench $(ONLY)

truth: install  ## compare a real project and Hub with the sandbox; makes its own users and removes them (AGAINST=URL, YES=1)
	@$(BIN)/python -m tests.checks.truth $(if $(AGAINST),--against '$(AGAINST)') $(if $(YES),--yes)

test-postgres: install  ## the tests of the schema, on Postgres 15 and 17
	bash tests/postgres_versions.sh

check-supabase: install $(NODE)  ## the migrations with the Supabase CLI (network)
	@$(BIN)/python -m tests.checks.supabase

check-photos: install  ## damage photos at random: what passes opens, shows the same, tells nothing (RUNS=20000, SEED=1; exiftool)
	@$(BIN)/python -m tests.checks.photos --runs $(or $(RUNS),20000) --seed $(or $(SEED),1)

check-training: install $(TRAINING)  ## train tiny FLUX models with the script that jobs run, without a GPU (network the first time; ONLY='klein flux1')
	@$(BIN)/python -m tests.checks.training $(ONLY)

check-web: has-chromium install $(NODE)  ## examples/web and docs/frontend.md's program in Chromium (network; ONLY='1 10')
	@$(BIN)/python -m tests.checks.web $(ONLY)

# First of all, before anything is installed.
has-chromium:
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit; done; \
	  echo "This needs Chromium. On Debian: sudo apt-get install --no-install-recommends chromium"; exit 1

$(NODE): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[node]'
	@touch $@

# An environment of its own, as a job has it: PyTorch and the rest at the versions in the script's header.
$(TRAINING): watcher/training/script.py $(INSTALLED)
	$(PYTHON) -m venv .venv-training
	$(BIN)/python -m tests.checks.training.requirements > .venv-training/requirements.txt
	.venv-training/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-training/requirements.txt
	@touch $@

$(RIVALS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:  ## remove what was installed
	rm -rf .venv .venv-training .cache examples/web/node_modules examples/web/dist
