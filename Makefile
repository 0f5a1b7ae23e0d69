# Every target sets up what it needs: a virtual environment in .venv with the
# exact versions of constraints.txt. Needed beforehand: Python >= 3.11, make, a
# package index. Choose an interpreter with `make PYTHON=/path/to/python3.12`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
  && { echo $$p; break; }; done)
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
HARNESS := $(VENV)/.installed-lm-eval

# Where the main job puts its results; override to keep several.
RUNS ?= runs
HSA := $(RUNS)/quickstart
SWA := $(RUNS)/quickstart_swa
STORED_SWA := benchmarks/results/quickstart_swa

# What both models are asked. Lengths are in tokens (here: bytes).
NIAH_TEXT := --suites=hsa_ruler --tasks=s_niah --haystack=text \
  --lengths=256,1K,4K,16K,64K,256K,1M --samples=20,256K:10
NIAH_NOISE := --suites=hsa_ruler --tasks=s_niah --haystack=noise \
  --lengths=1M --samples=10
PPL := --suites=ppl --lengths=256,4K --samples=20

# What `make eval-32m` asks. A sample of 32M tokens takes about 5 minutes on two
# cores, so all of it 1 h 20. Override: make eval-32m LENGTHS=1M,4M SAMPLES=2
LENGTHS ?= 1M,4M,16M,32M
SAMPLES ?= 10,4M:5,16M:2,32M:10
SAMPLES_ENGLISH ?= 2,16M:1,32M:2
NIAH_LONG = --suites=hsa_ruler --tasks=s_niah --lengths=$(LENGTHS)

.PHONY: help setup quickstart quickstart-data quickstart-train \
  quickstart-eval quickstart-control quickstart-table quickstart-store-control \
  eval-32m ruler-tiny ablation ablation-smoke ablation-report study study-report test test-slow test-lm-eval aot lint bench bench-memory \
  bench-decode bench-cost bench-data clean

help:  ## Lists the targets.
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) \
	  | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Installs the package and its tools into .venv (once).

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 found. Install one, or\
	 name it: make PYTHON=/path/to/python3.12" >&2; exit 2; }
	@echo "Setting up $(VENV) with $(PYTHON) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(HARNESS): $(STAMP)
	@$(RUN) -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[dev,lm-eval]'
	@touch $@

# --- the main job ------------------------------------------------------------

quickstart: $(STAMP)  ## Trains on real text, evaluates to 1M tokens, prints the table.
	@start=$$SECONDS && \
	$(MAKE) --no-print-directory quickstart-data && \
	$(MAKE) --no-print-directory quickstart-train && \
	$(MAKE) --no-print-directory quickstart-eval && \
	$(MAKE) --no-print-directory quickstart-table && \
	echo "quickstart: $$((SECONDS - start)) s after set-up"

quickstart-data: $(STAMP)
	$(RUN) -m hsa_jax.cli.prepare --config=configs/quickstart.py

quickstart-train: $(STAMP)
	$(RUN) train.py --config=configs/quickstart.py --workdir=$(HSA)

quickstart-eval: $(STAMP)
	$(RUN) eval.py --checkpoint=$(HSA) --workdir=$(HSA)/eval $(NIAH_TEXT)
	$(RUN) eval.py --checkpoint=$(HSA) --workdir=$(HSA)/eval $(NIAH_NOISE)
	$(RUN) eval.py --checkpoint=$(HSA) --workdir=$(HSA)/eval $(PPL)

quickstart-control: $(STAMP)  ## Trains and evaluates the control afresh.
	$(RUN) -m hsa_jax.cli.prepare --config=configs/quickstart_swa.py
	$(RUN) train.py --config=configs/quickstart_swa.py --workdir=$(SWA)
	$(RUN) eval.py --checkpoint=$(SWA) --workdir=$(SWA)/eval $(NIAH_TEXT)
	$(RUN) eval.py --checkpoint=$(SWA) --workdir=$(SWA)/eval $(NIAH_NOISE)
	$(RUN) eval.py --checkpoint=$(SWA) --workdir=$(SWA)/eval $(PPL)

# The control's stored results count only while they belong to the present
# configs/quickstart_swa.py and its data; otherwise it is trained here and now.
FIND_CONTROL := $(RUN) -m hsa_jax.cli.find_results \
  --config=configs/quickstart_swa.py --beside=$(HSA)/eval \
  $(SWA)/eval $(STORED_SWA)

quickstart-table: $(STAMP)
	@$(FIND_CONTROL) >/dev/null \
	  || { echo "no results of the control that fit: training it"; \
	  $(MAKE) --no-print-directory quickstart-control; }
	@control=$$($(FIND_CONTROL) 2>/dev/null) && echo "control: $$control" && \
	$(RUN) eval.py --report $(HSA)/eval "$$control" --out=$(RUNS)/comparison

# Keeps the control's results with the repository, to be shown until its
# configuration or its data change.
quickstart-store-control: $(STAMP)
	mkdir -p $(STORED_SWA)
	cp $(SWA)/eval/run.json $(SWA)/eval/results.jsonl $(STORED_SWA)/

# Every finished sample is kept: the same command goes on where it was stopped.
eval-32m: $(STAMP)  ## Asks for a needle in up to 32M tokens, from disk and from RAM.
	$(MAKE) --no-print-directory quickstart-data
	$(MAKE) --no-print-directory quickstart-train
	$(RUN) eval.py --checkpoint=$(HSA) --workdir=$(HSA)/eval_32m_disk \
	  $(NIAH_LONG) --haystack=noise --samples=$(SAMPLES) --memory=disk
	$(RUN) eval.py --checkpoint=$(HSA) --workdir=$(HSA)/eval_32m_int8 \
	  $(NIAH_LONG) --haystack=text --samples=$(SAMPLES_ENGLISH) \
	  --memory=host --kv-dtype=int8
	@$(RUN) eval.py --report $(HSA)/eval_32m_disk $(HSA)/eval_32m_int8 \
	  --out=$(RUNS)/comparison_32m

# The second model: needles, keys and chains of variables, in tokens of its own
# vocabulary (three bytes of text each), in three stages.
RULER := $(RUNS)/ruler_tiny
RULER_SFT := $(RUNS)/ruler_tiny_sft
RULER_CHAINS := $(RUNS)/ruler_tiny_chains
RULER_TASKS := --suites=hsa_ruler --tasks=s_niah,mk_mq,vt,vt_last
RULER_LENGTHS ?= 1K,4K,16K,64K,256K,1M
RULER_SAMPLES ?= 50,16K:20,256K:10,1M:5

ruler-tiny: $(STAMP)  ## Trains on needles, keys and chains; evaluates to 1M and 32M.
	$(RUN) -m hsa_jax.cli.tokenizer train --vocab=1024 --corpus=sotu \
	  --out=data/tokenizers/sotu-1k.json
	$(RUN) -m hsa_jax.cli.prepare --config=configs/ruler_tiny.py
	$(RUN) train.py --config=configs/ruler_tiny.py --workdir=$(RULER)
	$(RUN) train.py --config=configs/ruler_tiny_sft.py --workdir=$(RULER_SFT) \
	  --config.train.init_from=$(RULER)
	$(RUN) train.py --config=configs/ruler_tiny_chains.py \
	  --workdir=$(RULER_CHAINS) --config.train.init_from=$(RULER_SFT)
	$(RUN) eval.py --checkpoint=$(RULER_CHAINS) --workdir=$(RULER_CHAINS)/eval \
	  $(RULER_TASKS) --lengths=$(RULER_LENGTHS) --samples=$(RULER_SAMPLES)
	$(RUN) eval.py --checkpoint=$(RULER_CHAINS) \
	  --workdir=$(RULER_CHAINS)/eval_32m --suites=hsa_ruler --tasks=s_niah --lengths=32M --samples=1 \
	  --memory=host --kv-dtype=int8

# The ablation grid. More of it: make ablation SUBSET=sparsity SEEDS=3
SWEEP := $(RUN) -m hsa_jax.cli.sweep --config=configs/ablation.py
GRID := $(RUNS)/ablation
STORED_GRID := benchmarks/results/ablation/tiny
SUBSET ?= principles
SEEDS ?= 5
JOBS ?= 2

ablation: $(STAMP)  ## Trains and evaluates the principles over five seeds; a report.
	$(SWEEP) --size=tiny --workdir=$(GRID)/tiny --subset=$(SUBSET) \
	  --seeds=$(SEEDS) --jobs=$(JOBS) --run --report

ablation-smoke: $(STAMP)  ## The same of a 2 x 2 grid that learns nothing, in minutes.
	@start=$$SECONDS && \
	$(SWEEP) --size=smoke --workdir=$(GRID)/smoke --subset=square --seeds=2 \
	  --jobs=2 --run --report && \
	echo "ablation-smoke: $$((SECONDS - start)) s after set-up"

# Keeps what was measured with the repository; from then on the report is remade
# from that, whether the runs are still there or not.
ablation-report: $(STAMP)  ## Remakes the stored report and the findings in the docs.
	@mkdir -p $(STORED_GRID)
	$(SWEEP) --size=tiny --seeds=$(SEEDS) --workdir=$(GRID)/tiny --report \
	  --out=$(STORED_GRID) --doc=docs/ablation.md

# Any grid file: make study STUDY=length_repair SEEDS=3. It goes on where it was
# stopped; study-report remakes what is stored of it and the tables in the docs.
STUDY ?= companions
STUDY_SWEEP = $(RUN) -m hsa_jax.cli.sweep --config=configs/$(STUDY).py \
  --workdir=$(RUNS)/$(STUDY) --seeds=$(SEEDS)

study: $(STAMP)  ## Another grid: STUDY=companions, length_repair or hops.
	$(STUDY_SWEEP) --jobs=$(JOBS) --run --report

study-report: $(STAMP)  ## Remakes its stored report and docs/companions.md.
	@mkdir -p benchmarks/results/$(STUDY)
	$(STUDY_SWEEP) --report --out=benchmarks/results/$(STUDY) \
	  --doc=docs/companions.md

# --- development -------------------------------------------------------------

test: $(STAMP)  ## Runs the tests (under 15 minutes on 2 cores).
	$(RUN) -m pytest -n logical

test-slow: $(STAMP)  ## Runs the slow tests too: learning, many devices.
	$(RUN) -m pytest -m ''

test-lm-eval: $(HARNESS)  ## Installs lm-evaluation-harness, runs its adapter's tests.
	$(RUN) -m pytest tests/interop

# Beside the environment and not in it: with libtpu installed a run on this
# machine would wait for a TPU in place of using its cores.
LIBTPU := $(VENV)/libtpu

$(LIBTPU): $(STAMP)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps \
	  --constraint constraints.txt --target $@ libtpu

aot: $(LIBTPU)  ## Compiles every pod of every configuration; no TPU needed.
	PYTHONPATH=$(LIBTPU) $(RUN) -m pytest -m aot

lint: $(STAMP)  ## Style, formatting and types.
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m pyright --pythonpath $(RUN)

bench: $(STAMP)  ## Measures this machine: training, prefill, memory.
	$(RUN) benchmarks/bench.py

bench-memory: $(STAMP)  ## Search and read in every home of the memory.
	$(RUN) benchmarks/memory.py

PRESET ?= tiny
bench-decode: $(STAMP)  ## Prefill and decode beside full attention; GPU: PRESET=345m.
	$(RUN) benchmarks/prefill_decode.py --preset=$(PRESET)

bench-cost: $(STAMP)  ## A row of 1K to 16K tokens: every kind of model.
	$(RUN) benchmarks/cost_by_length.py

TOKENIZERS ?= byte
bench-data: $(STAMP)  ## Text to tokens to batches, beside what a pod's host eats.
	$(MAKE) --no-print-directory quickstart-data
	$(RUN) benchmarks/data.py --tokenizers=$(TOKENIZERS)

clean:  ## Removes the environment and caches; keeps data/ and runs/.
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
