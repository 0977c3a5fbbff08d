# make lab, make test, make lint: each sets up what it needs.

.PHONY: lab test browser faults bench help kernel lint format lessons pins audit clean
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
# Installs what a file of requirements lists, with a dot every two seconds.
install = @printf '$(2)'; $(PIP) -r $(1) & pid=$$!; trap 'kill $$pid' INT TERM; \
	while kill -0 $$pid 2>/dev/null; do printf .; sleep 2; done; echo; wait $$pid || { \
	echo "The packages could not be installed. Is there a network, or a proxy to be named in HTTPS_PROXY? The same command goes on from here."; \
	exit 1; }

# What there is, for somebody who has forgotten.
help:
	@echo "make lab       opens JupyterLab on the lessons (ARGS=\"--port 9999\" is for Jupyter)"
	@echo "make test      runs every test and every notebook (ARGS=\"tests/catalog -x\" runs a part)"
	@echo "make browser   looks at the lab in Chromium, as a person does"
	@echo "make faults    breaks servers, networks and kernels on purpose (ARGS=\"--only kernel\" is a part)"
	@echo "make lint      checks the code, make format mends it"
	@echo "make lessons   runs the lessons and saves their outputs"
	@echo "make bench     measures"
	@echo "make pins      compiles requirements.txt anew"
	@echo "make audit     asks PyPI whether a pinned package is known to be unsafe"
	@echo "make clean     removes .venv and what the tools keep; the database stays"

lab: .venv/lab.done
	@$(VENV) manage.py shell_plus --lab $(if $(ARGS),-- $(ARGS))

test: .venv/test.done kernel
	@$(VENV) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore tests/browser $(ARGS)

# The lab in Chromium, as a person sees it; pictures of it are kept in .workbench/screenshots.
browser: .venv/test.done kernel
	@$(VENV) -m pytest tests/browser $(ARGS)

# What may go wrong, 500 times: takes about a quarter of an hour.
faults: .venv/test.done kernel
	@$(VENV) -m tests.faults $(ARGS)

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
	$(VENV) manage.py find_secrets

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
	$(PIP) -r requirements.txt
	$(VENV) -m tests.licences

# It fails, too, where the network has no advisories: what was not looked at is not said to be safe.
audit: .venv/lab.done
	$(PIP) uv
	$(VENV) -m uv tool run pip-audit@2.10.1 --strict --no-deps --disable-pip --progress-spinner off \
		--requirement requirements.txt --requirement tests/requirements.txt

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/lab.done: requirements.txt
	$(if $(PYTHON),,$(error The workbench needs Python 3.11 or newer: install it, or run 'make PYTHON=/path/to/python'))
	@printf 'Setting up .venv (about a minute and 800 MB; once)'
	@$(PYTHON) -m venv .venv || { echo "Python's venv module is needed: on Debian and Ubuntu, 'apt install python3-venv'."; exit 1; }
	$(call install,requirements.txt,)
	@touch $@

.venv/test.done: .venv/lab.done tests/requirements.txt
	$(call install,tests/requirements.txt,Installing what the tests need)
	@touch $@

.venv/bench.done: .venv/test.done tests/benchmarks/requirements.txt
	$(call install,tests/benchmarks/requirements.txt,Installing what is measured beside ours)
	@touch $@
