# make repro   set up, run the pipeline, print the table
# make test    set up, run every check
# PYTHON=...   the interpreter to build the virtual environment with (3.11 or newer)

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: repro test

repro: $(VENV)/.run
	dvc repro
	@echo
	@cat metrics/table.md

test: $(VENV)/.test
	ruff format --check .
	ruff check .
	mypy
	pytest -n auto --dist loadfile

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# facenet-pytorch pins torch < 2.3, numpy < 2 and Pillow < 10.3 but works with the current ones, as
# tests/data/test_faces.py shows; with its dependencies pip would install an old torch.
$(VENV)/.run: requirements.txt constraints.txt | $(VENV)/bin/python
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	python -m pip install --quiet --disable-pip-version-check --no-deps facenet-pytorch==2.6.0
	touch $@

$(VENV)/.test: requirements-dev.txt $(VENV)/.run
	python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@
