# One target per stage; `make help` lists them. Settings: `make finetune METHOD=rwl RUN=first SET="run.seed=1 rwl.adapter.rank=4"`.

RUN ?= demo
METHOD ?= rwl
MODEL ?=
PROMPTS ?=
CONFIG ?=
PORT ?=
OPEN ?=
MODELS ?=
MIX ?=
AXES ?=
ROUND ?=
ROUNDS ?= 3
NAME ?=
ROLE ?=
CHECK ?=
FORMAT ?=
FROM ?=
SKIP_BAD ?=
TO ?=
PROCESSES ?=
MACHINES ?=
REWARD ?=
IMAGES ?=
OUT ?=
MAPS ?=
N ?=
TABLE ?=
SET ?=

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
BASE_PYTHON := $(shell command -v python3.11 || command -v python3)

# The registry of methods, a line each.
METHODS = $(strip $(shell sed -n 's/^    "\([^"]*\)": Entry\>.*/\1/p' pipelines/methods.py))

# A flag is passed only where its variable is set, so that the run's own settings hold otherwise.
flag = $(if $(strip $(2)),--$(1) '$(strip $(2))')
COMMON = $(strip --run '$(RUN)' $(call flag,config,$(CONFIG)) $(foreach setting,$(SET),--set '$(setting)'))
INPUTS = $(call flag,model,$(MODEL)) $(call flag,prompts,$(PROMPTS))
STAGE = $(PYTHON) -m pipelines
ON_ONE_MACHINE = --multi_gpu --num_processes '$(PROCESSES)' --num_machines 1 --main_process_port 0 --mixed_precision no --dynamo_backend no
LAUNCH = $(PYTHON) -m pipelines.launch $(if $(MACHINES),--config_file '$(MACHINES)',$(ON_ONE_MACHINE)) -m pipelines
# Stages whose work several processes share, on this machine or on those of a file of accelerate.
SHARED_STAGE = $(if $(strip $(filter-out 1,$(PROCESSES)) $(MACHINES)),$(LAUNCH),$(STAGE))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PRECIOUS: runs/%/labels/feedback.db
.PHONY: help setup images label rater simulate import dataset inspect export reward score best-of-n finetune rehearse export-adapter evaluate play session session-policy rounds compare compare-report report demo settings models screenshots bench bench-methods bench-one-draw bench-compare bench-drawing check test test-quick clean-caches

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  variables      RUN= METHOD= ($(METHODS)) MODEL= PROMPTS= CONFIG= PORT= OPEN= NAME= ROLE= CHECK= ROUND= ROUNDS='
	@echo '                 FORMAT= FROM= SKIP_BAD= TO= PROCESSES= MACHINES= REWARD= IMAGES= OUT= MAPS= N= MODELS= MIX= AXES= TABLE= SET="table.name=value ..."'

setup: $(INSTALLED) ## Make .venv with everything in it (quick when it is there)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(PYTHON) || $(BASE_PYTHON) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@# Apart, for its tests: whatever process finds torchao imports it, which takes time and speaks on stderr.
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade --no-deps --target $(VENV)/optional torchao
	touch $@

images: $(INSTALLED) ## Draw images for prompts (MODEL=, PROMPTS=, PROCESSES=), or with a tuned model (ROUND=2, METHOD=)
	$(SHARED_STAGE) images $(COMMON) $(INPUTS) $(call flag,round,$(ROUND)) $(if $(filter-out file,$(origin METHOD)),--method '$(METHOD)')

label: $(INSTALLED) ## Label the run's images in a browser (PORT=, OPEN=1)
	$(STAGE) label $(COMMON) $(call flag,port,$(PORT)) $(if $(OPEN),--open)

rater: $(INSTALLED) ## Add a rater, or give one a new password (NAME=, ROLE=rater|admin)
	$(STAGE) rater $(COMMON) $(call flag,name,$(NAME)) $(call flag,role,$(ROLE))

simulate: $(INSTALLED) ## Let simulated raters label the run's images
	$(STAGE) simulate $(COMMON)

import: $(INSTALLED) ## Bring in images and labels (FORMAT=, FROM=, SKIP_BAD=1: without bad rows)
	$(STAGE) import $(COMMON) $(call flag,format,$(FORMAT)) $(call flag,from,$(FROM)) $(if $(SKIP_BAD),--skip-bad)

dataset: $(INSTALLED) ## Export the labels as Parquet (CHECK=1: only check what is there)
	$(STAGE) dataset $(COMMON) $(if $(CHECK),--check)

inspect: $(INSTALLED) ## A first look at the labels: a summary, and a page with tables
	$(STAGE) inspect $(COMMON)

export: $(INSTALLED) ## Write the labels for other tools (FORMAT=, TO=)
	$(STAGE) export $(COMMON) $(call flag,format,$(FORMAT)) $(call flag,to,$(TO))

reward: $(INSTALLED) ## Train the reward model on the labels (PROCESSES=)
	$(SHARED_STAGE) reward $(COMMON)

score: $(INSTALLED) ## Score images with a trained reward (REWARD=, IMAGES=, PROMPTS=, OUT=, MAPS=1: where it is wrong, PROCESSES=)
	$(SHARED_STAGE) score $(COMMON) $(call flag,reward,$(REWARD)) $(call flag,images,$(IMAGES)) $(call flag,prompts,$(PROMPTS)) $(call flag,out,$(OUT)) $(if $(MAPS),--maps)

best-of-n: $(INSTALLED) ## Draw N images a prompt and pick the best (N=, REWARD=, PROMPTS=, OUT=, PROCESSES=)
	$(SHARED_STAGE) best-of-n $(COMMON) $(INPUTS) $(call flag,n,$(N)) $(call flag,reward,$(REWARD)) $(call flag,out,$(OUT))

finetune: $(INSTALLED) ## Fine-tune the model on the reward (METHOD=, PROCESSES=)
	$(SHARED_STAGE) finetune $(COMMON) --method '$(METHOD)'

rehearse: $(INSTALLED) ## Say what a training will take, after a minute of it (METHOD=)
	$(STAGE) rehearse $(COMMON) --method '$(METHOD)'

export-adapter: $(INSTALLED) ## Write a tuned LoRA for ComfyUI and A1111 (METHOD=, FORMAT=kohya, TO=)
	$(STAGE) export-adapter $(COMMON) --method '$(METHOD)' $(call flag,format,$(FORMAT)) $(call flag,to,$(TO))

evaluate: $(INSTALLED) ## Compare base and tuned models; write the report (PROCESSES=, MIX=)
	$(SHARED_STAGE) evaluate $(COMMON) $(call flag,mix,$(MIX))

play: $(INSTALLED) ## Try base and tuned models in a browser, side by side (PORT=)
	$(STAGE) play $(COMMON) $(call flag,port,$(PORT))

session: $(INSTALLED) ## Sessions in a browser: people pick from slates, turn by turn (PORT=)
	$(STAGE) session $(COMMON) $(call flag,port,$(PORT))

session-policy: $(INSTALLED) ## Learn from the run's sessions which slates to show
	$(STAGE) session-policy $(COMMON)

rounds: $(INSTALLED) ## Rounds of images, labels, reward and tuning, then evaluate (ROUNDS=, METHOD=, PROCESSES=)
	$(SHARED_STAGE) rounds $(COMMON) $(INPUTS) --rounds '$(ROUNDS)' --method '$(METHOD)'

compare: $(INSTALLED) ## Let people compare models: plans what `make label` asks (MODELS=base,rwl, AXES=overall,appeal)
	$(STAGE) compare $(COMMON) $(call flag,models,$(MODELS)) $(call flag,axes,$(AXES))

report: $(INSTALLED) ## Write the report again from the figures of evaluate
	$(STAGE) report $(COMMON)

compare-report: $(INSTALLED) ## What people say of the models in comparisons: a page and figures
	$(STAGE) compare-report $(COMMON)

demo: $(INSTALLED) ## The whole story on the embedded models, in minutes (PROCESSES=)
	$(SHARED_STAGE) demo $(COMMON) $(INPUTS)

settings: $(INSTALLED) ## Explain all settings (TABLE=: those of one table)
	$(STAGE) settings $(TABLE)

models: $(INSTALLED) ## Train the embedded models again, for hours (needs fonts-noto-color-emoji)
	bash -o pipefail -c '$(PYTHON) -m benchmarks.emoji.models 2>&1 | tee models/training.log'
	$(PYTHON) -m benchmarks.embedded_models

screenshots: $(INSTALLED) ## Take the images of docs/raters.md again (look at them before they are kept)
	$(PYTHON) -m tests.support.labeling_screenshots docs

bench: $(INSTALLED) ## Measure labeling, dataset and queries; figures go to benchmarks/results/
	$(PYTHON) -m benchmarks.bench_labeling
	$(PYTHON) -m benchmarks.bench_latency
	$(PYTHON) -m benchmarks.bench_opening
	$(PYTHON) -m benchmarks.bench_dataset
	$(PYTHON) -m benchmarks.bench_queries

bench-methods: $(INSTALLED) ## Compare all methods over three seeds, for hours
	$(PYTHON) -m benchmarks.methods

bench-one-draw: $(INSTALLED) ## Compare one draw of the tuned model with the best of several, for hours
	$(PYTHON) -m benchmarks.one_draw --rivals

bench-compare: $(INSTALLED) ## Measure what intervals of comparisons promise, in minutes
	$(PYTHON) -m benchmarks.compare

bench-drawing: $(INSTALLED) ## Measure drawing images beside a plain loop of diffusers, in minutes
	$(PYTHON) -m benchmarks.bench_drawing

# Deno only reads the front end here: without a folder for its caches it keeps them in memory.
DENO = DENO_NO_UPDATE_CHECK=1 DENO_DIR=/dev/null $(VENV)/bin/deno
FRONT_END = --quiet --config labeling_app/deno.json

check: $(INSTALLED) ## Lint, types and layers, within a minute
	$(VENV)/bin/ruff check --no-cache
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PYTHON) -m benchmarks.house
	$(DENO) lint $(FRONT_END)
	$(DENO) fmt --check $(FRONT_END)
	$(DENO) check --no-remote --no-lock $(FRONT_END) labeling_app/static

# A process for each core; a file's tests share one, and with it what is slow to make.
PYTEST = $(PYTHON) -m pytest --numprocesses logical --dist loadfile

test: check ## Everything that can be tested here
	.ci/install-system
	$(PYTEST)

test-quick: $(INSTALLED) ## The tests that are not slow by design, within four minutes
	.ci/install-system
	$(PYTEST) -m "not slow"

clean-caches: ## Remove what tools keep to be quick; runs stay
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find data labeling_app reward finetune pipelines world tests -name __pycache__ -prune -exec rm -rf {} +
