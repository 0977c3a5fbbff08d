# make lab, make test, make lint: each sets up what it needs.

.PHONY: lab test bench kernel lint format lessons pins clean
.DEFAULT_GOAL := lab

ifeq ($(OS),Windows_NT)
PYTHON ?= python
VENV := .venv/Scripts/python
else
# The first of these that is Python 3.11 or newer.
PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
VENV := .venv/bin/python
endif

PIP := $(VENV) -m pip install --quiet --disable-pip-version-check

lab: .venv/lab.done
	@$(VENV) manage.py shell_plus --lab $(if $(ARGS),-- $(ARGS))

test: .venv/test.done kernel
	@$(VENV) -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

# frame, load and the schema beside their peers: takes about a quarter of an hour, and wants the machine
# for itself.
bench: .venv/bench.done kernel
	@$(VENV) -m tests.benchmarks $(ARGS)

# Each time, for a checkout that was moved or pulled; the lab does it by itself.
kernel: .venv/lab.done
	@$(VENV) manage.py install_kernel >/dev/null

lint: .venv/test.done
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check .
	$(VENV) -m mypy

format: .venv/test.done
	$(VENV) -m ruff check --fix .
	$(VENV) -m ruff format .

# After a change of a lesson: run it, on a database made for that, and save its outputs.
lessons: .venv/test.done kernel
	$(VENV) -m tests.notebooks.lessons $(ARGS)

# After a change of pyproject.toml: every version anew, for every supported system and Python.
pins: .venv/lab.done
	$(PIP) uv
	$(VENV) -m uv pip compile --quiet --upgrade --universal --no-header --no-annotate pyproject.toml -o requirements.txt
	$(VENV) -m uv pip compile --quiet --upgrade --universal --no-header --no-annotate --group test \
		--constraint requirements.txt -o tests/requirements.txt
	$(VENV) -m uv pip compile --quiet --upgrade --universal --no-header --no-annotate --group bench \
		--constraint requirements.txt -o tests/benchmarks/requirements.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/lab.done: requirements.txt
	$(if $(PYTHON),,$(error The workbench needs Python 3.11 or newer: install it, or run 'make PYTHON=/path/to/python'))
	@echo "Setting up .venv: this takes about a minute, once."
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is needed: on Debian and Ubuntu, 'apt install python3-venv'."; exit 1; }
	@$(PIP) -r requirements.txt
	@touch $@

.venv/test.done: .venv/lab.done tests/requirements.txt
	@$(PIP) -r tests/requirements.txt
	@touch $@

.venv/bench.done: .venv/test.done tests/benchmarks/requirements.txt
	@$(PIP) -r tests/benchmarks/requirements.txt
	@touch $@
