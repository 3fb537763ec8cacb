# Shorthands for the README's two commands and their parts. Nothing here is needed: README.md needs only Python and git.

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest -n auto

.PHONY: help demo check test lint kernel workspace matrix fs-next clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

demo: $(VENV)/installed  ## overlayvfs demo
	$(BIN)/overlayvfs demo

check: $(VENV)/installed  ## everything CI runs
	$(PYTEST) --kernel-seconds 45

test: $(VENV)/installed  ## the tests without the slow ones
	$(PYTEST) -m "not slow"

lint: $(VENV)/installed  ## ruff, mypy --strict and the import contracts alone
	$(BIN)/pytest -q tests/test_contracts.py

kernel: $(VENV)/installed  ## what asks a real overlayfs mount, slow tests included
	$(PYTEST) -m kernel

workspace: $(VENV)/installed  ## 2,000 families of forks beside the kernel, 2,000 sequences committed, with failures
	$(BIN)/python tests/workspace_longrun.py forks --jobs 2
	$(BIN)/python tests/workspace_longrun.py commits --jobs 2 --points 4

matrix:  ## the tests without the slow ones on every Python from 3.11 on that is here
	.ci/matrix

fs-next:  ## the same tests with fs-next in place of fs
	.ci/fs-next

clean:  ## remove virtual environments and caches
	rm -rf .venv* build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/installed: pyproject.toml
	python3 -m venv $(VENV)
	$(BIN)/pip install -q -e '.[test]'
	touch $@
