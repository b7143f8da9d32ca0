# Every target makes .venv by itself. Needs Python 3.11 or later, make and git.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo sandbox check format test test-postgres clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED)  ## make .venv with the command `watcher` in it

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install  ## watch a row become a repo (PHOTOS=dir, JSON=1, KEEP=1)
	@$(BIN)/watcher demo $(if $(PHOTOS),--photos '$(PHOTOS)') $(if $(JSON),--json) $(if $(KEEP),--keep)

sandbox: install  ## a Supabase and a Hub on this machine, until Ctrl-C
	@$(BIN)/watcher sandbox

check: install  ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install  ## put the code in the form that `check` asks for
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install  ## everything, on Postgres 18, without a network
	$(BIN)/pytest -n 2 --dist loadfile

test-postgres: install  ## what touches the schema, on Postgres 15 and 17
	bash tests/postgres_versions.sh

clean:  ## remove what `install` made
	rm -rf .venv
