# The Makefile only bootstraps: the work is done by `python -m workbench`.
# On Windows or with conda: `conda env create -f environment.yml`, then the same `python -m workbench ...`.
#
#   make reproduce                 all papers at profile quick, then the gallery
#   make reproduce ONLY=taid       one paper           PROFILE=full   the half-hour version
#   make test                      every test
#   make lab                       JupyterLab on notebooks/index.ipynb
#   make clean                     remove .venv and build leftovers (data/ stays: `python -m workbench cache --clear`)
#   make reproduce TORCH_INDEX=URL where torch itself comes from (README: which torch)

PROFILE ?= quick
ONLY    ?= all
TORCH_INDEX ?=
PYTHON  ?= $(shell command -v python3.11 || command -v python3 || echo python3)
VENV    := .venv
STAMP   := $(VENV)/.installed
RUN     := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help reproduce test lab clean

help:
	@sed -n 's/^#   \(make.*\)/\1/p' Makefile

reproduce: $(STAMP)
	@$(RUN) -m workbench run $(ONLY) --profile $(PROFILE); status=$$?; \
	$(RUN) -m workbench report || exit $$?; exit $$status

test: $(STAMP)
	@echo "== Unit, property, notebook and browser tests"
	@$(RUN) -m pytest
	@echo "== Stored outputs of tests/notebooks, compared by nbval"
	@$(RUN) -m pytest --nbval --nbval-current-env -p no:cacheprovider tests/notebooks/*.ipynb

lab: $(STAMP)
	@$(RUN) -m jupyter lab notebooks/index.ipynb

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache

# Stale as soon as the tested set or the package's own requirements change.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; got %s. Say make PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@echo "== Creating $(VENV) with $$($(PYTHON) --version) (about two minutes, once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@echo "== Installing the tested set of constraints.txt"
	@if [ -n "$(TORCH_INDEX)" ]; then $(RUN) -m pip install --quiet --constraint constraints.txt --index-url "$(TORCH_INDEX)" torch; fi
	@$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@
	@echo "== $(VENV) is ready"
