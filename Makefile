# One target per stage; `make help` lists them. Settings: `make finetune METHOD=rwl RUN=first SET="run.seed=1 rwl.lora.rank=4"`.

RUN ?= demo
METHOD ?= dpok
MODEL ?=
PROMPTS ?=
CONFIG ?=
PORT ?=
OPEN ?=
ORDER ?=
NAME ?=
ROLE ?=
CHECK ?=
FORMAT ?=
FROM ?=
TO ?=
PROCESSES ?=
REWARD ?=
IMAGES ?=
OUT ?=
N ?=
SET ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
BASE_PYTHON := $(shell command -v python3.11 || command -v python3)

# A flag is passed only where its variable is set, so that the run's own settings hold otherwise.
flag = $(if $(strip $(2)),--$(1) '$(strip $(2))')
COMMON = $(strip --run '$(RUN)' $(call flag,config,$(CONFIG)) $(foreach setting,$(SET),--set '$(setting)'))
INPUTS = $(call flag,model,$(MODEL)) $(call flag,prompts,$(PROMPTS))
STAGE = $(PYTHON) -m pipelines
LAUNCH = $(VENV)/bin/accelerate launch --multi_gpu --num_processes '$(PROCESSES)' --num_machines 1 --mixed_precision no --dynamo_backend no

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PRECIOUS: runs/%/labels/feedback.db
.PHONY: help setup images label rater simulate import dataset inspect export reward score best-of-n finetune evaluate report demo models bench bench-reward bench-methods bench-finetune check test clean-caches

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables      RUN= METHOD=rwl|dpok|ddpo MODEL= PROMPTS= CONFIG= PORT= OPEN= ORDER= NAME= ROLE= CHECK='
	@echo '                 FORMAT= FROM= TO= PROCESSES= REWARD= IMAGES= OUT= N= SET="table.name=value ..."'

setup: $(INSTALLED) ## Make .venv with everything in it (quick when it is there)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

images: $(INSTALLED) ## Draw images for prompts (MODEL=, PROMPTS=)
	$(STAGE) images $(COMMON) $(INPUTS)

label: $(INSTALLED) ## Label the run's images in a browser (PORT=, OPEN=1, ORDER=uncertain)
	$(STAGE) label $(COMMON) $(call flag,port,$(PORT)) $(if $(OPEN),--open) $(call flag,order,$(ORDER))

rater: $(INSTALLED) ## Add a rater, or give one a new password (NAME=, ROLE=rater|admin)
	$(STAGE) rater $(COMMON) $(call flag,name,$(NAME)) $(call flag,role,$(ROLE))

simulate: $(INSTALLED) ## Let simulated raters label the run's images
	$(STAGE) simulate $(COMMON)

import: $(INSTALLED) ## Bring in images and labels (FORMAT=, FROM=)
	$(STAGE) import $(COMMON) $(call flag,format,$(FORMAT)) $(call flag,from,$(FROM))

dataset: $(INSTALLED) ## Export the labels as Parquet (CHECK=1: only check what is there)
	$(STAGE) dataset $(COMMON) $(if $(CHECK),--check)

inspect: $(INSTALLED) ## A first look at the labels: tables, and a page with plots
	$(STAGE) inspect $(COMMON)

export: $(INSTALLED) ## Write the labels for other tools (FORMAT=, TO=)
	$(STAGE) export $(COMMON) $(call flag,format,$(FORMAT)) $(call flag,to,$(TO))

reward: $(INSTALLED) ## Train the reward model on the labels
	$(STAGE) reward $(COMMON)

score: $(INSTALLED) ## Score pictures with a trained reward (REWARD=, IMAGES=, PROMPTS=, OUT=)
	$(STAGE) score $(COMMON) $(call flag,reward,$(REWARD)) $(call flag,images,$(IMAGES)) $(call flag,prompts,$(PROMPTS)) $(call flag,out,$(OUT))

best-of-n: $(INSTALLED) ## Draw N pictures a prompt and pick the best (N=, REWARD=, PROMPTS=, OUT=)
	$(STAGE) best-of-n $(COMMON) $(INPUTS) $(call flag,n,$(N)) $(call flag,reward,$(REWARD)) $(call flag,out,$(OUT))

finetune: $(INSTALLED) ## Fine-tune the model on the reward (METHOD=rwl, dpok or ddpo; PROCESSES=)
	$(if $(filter-out 1,$(PROCESSES)),$(LAUNCH) -m pipelines,$(STAGE)) finetune $(COMMON) --method '$(METHOD)'

evaluate: $(INSTALLED) ## Compare base and tuned models; write the report
	$(STAGE) evaluate $(COMMON)

report: $(INSTALLED) ## Write the report again from the figures of evaluate
	$(STAGE) report $(COMMON)

demo: $(INSTALLED) ## The whole story on the embedded models, in minutes
	$(STAGE) demo $(COMMON) $(INPUTS)

models: $(INSTALLED) ## Train the embedded models anew, for hours (needs fonts-noto-color-emoji)
	bash -o pipefail -c '$(PYTHON) -m pipelines.world.build 2>&1 | tee models/training.log'
	$(PYTHON) -m pipelines.world.measure
	$(PYTHON) -m pipelines.world.audit agree

bench: $(INSTALLED) ## Measure labeling, dataset and queries; figures go to benchmarks/results/
	$(PYTHON) -m benchmarks.bench_labeling
	$(PYTHON) -m benchmarks.bench_latency
	$(PYTHON) -m benchmarks.bench_dataset
	$(PYTHON) -m benchmarks.bench_queries

bench-reward: $(INSTALLED) ## Measure the reward: speed, and what each part of it brings
	$(PYTHON) -m benchmarks.bench_reward
	$(PYTHON) -m benchmarks.reward_ablation

bench-methods: $(INSTALLED) ## Compare all methods over three seeds, for hours
	$(PYTHON) -m benchmarks.methods

bench-finetune: $(INSTALLED) ## Measure an iteration of fine-tuning beside a straightforward loop
	$(PYTHON) -m benchmarks.bench_finetune

check: $(INSTALLED) ## Lint, types and layers, within a minute
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test: check ## Everything that can be tested here
	.ci/install-system
	$(PYTHON) -m pytest

clean-caches: ## Remove what tools keep to be quick; runs stay
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find data labeling_app reward finetune pipelines tests -name __pycache__ -prune -exec rm -rf {} +
