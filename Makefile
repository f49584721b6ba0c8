# make install       set up a virtual environment, .venv: 7 GB, some minutes
# make repro         set up, run the pipeline, print the table
# make final         run the pipeline, then train one model on everybody for use: runs/final
# make pretrain      set up, pre-train the tiny encoder on rendered faces (docs/pretraining.md)
# make affect        set up, train EMMA on rendered faces, print the table (docs/affect.md)
# make affect-ablation   what the parts of these models are worth: two tables; SEEDS=3: with three seeds
# make test          set up, run every check
# make ablation      run the six structures as DVC experiments, print Table I; SEEDS=3: with three seeds
# make encoders WEIGHTS="from_scratch marlin-base"   which of these encoders is the best on the data, frozen
# make experiments   list the committed run and the DVC experiments upon it, with their scores
# make ui            MLflow's pages at http://127.0.0.1:5000
# make demo          a page to try the models on, at http://127.0.0.1:7860; MODEL="runs/fold1 runs/fold2"
# PYTHON=...         the interpreter to build the virtual environment with (3.11 or newer)

PYTHON ?= python3
SEEDS ?= 1
WEIGHTS ?= from_scratch
MODEL ?= runs/final
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Programs in it, such as dvc, and `activate` name the folder that they were installed in.
ifneq ($(wildcard $(VENV)/pyvenv.cfg),)
MADE_IN := $(shell cat $(VENV)/pyvenv.cfg)
ifeq ($(findstring $(CURDIR)/$(VENV),$(MADE_IN)),)
ifneq ($(findstring command =,$(MADE_IN)),)
$(warning $(VENV) was made in another folder, where its programs still look: rm -r $(VENV), and make again)
endif
endif
endif

.PHONY: help install repro final pretrain affect affect-ablation test ablation encoders experiments ui demo

help:
	@sed -n 's/^# \(make .*\|PYTHON=.*\)/\1/p' Makefile

install: $(VENV)/.run

repro: $(VENV)/.run
	python -m commands.check
	dvc repro
	@echo
	@cat metrics/table.md

final: $(VENV)/.run
	dvc repro
	python -m commands.final

pretrain: $(VENV)/.run
	dvc repro pretrain/dvc.yaml
	cp data/pretrained/encoder.safetensors weights/pretrained.safetensors
	@echo
	@cat pretrain/metrics/summary.json

affect: $(VENV)/.run
	dvc repro affect/dvc.yaml
	@echo
	@cat affect/metrics/table.md

affect-ablation: affect
	python -m commands.affect_ablation --seeds $(SEEDS)

ablation: $(VENV)/.run
	python -m commands.ablation --seeds $(SEEDS)
	python -m commands.table_one

encoders: $(VENV)/.run
	dvc repro split baseline
	python -m commands.encoders --weights $(WEIGHTS)

experiments: $(VENV)/.run
	python -m commands.list_experiments

ui: $(VENV)/.run
	python -m commands.ui

demo: $(VENV)/.demo
	python -m commands.demo --model $(MODEL)

test: $(VENV)/.test $(VENV)/.demo
	ruff format --check .
	ruff check .
	mypy
	pytest -n auto --dist loadfile --no-loadscope-reorder

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "No virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }

# facenet-pytorch pins torch < 2.3, numpy < 2 and Pillow < 10.3 but works with the current ones, as
# tests/video/test_faces.py shows; with its dependencies pip would install an old torch.
$(VENV)/.run: requirements.txt constraints.txt | $(VENV)/bin/python
	@echo "Installing what requirements.txt names into $(VENV): some minutes, and up to 7 GB"
	python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	python -m pip install --quiet --disable-pip-version-check --no-deps facenet-pytorch==2.6.0
	touch $@

$(VENV)/.test: requirements-dev.txt $(VENV)/.run
	python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@

# Gradio, too, pins older versions than those that it works with.
$(VENV)/.demo: requirements-demo.txt $(VENV)/.run
	python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-demo.txt
	touch $@
