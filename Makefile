# The commands of the README. `make setup` is needed once; the others run it when something changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DIST := dist
STAMP := $(VENV)/.setup

# uv reads its own variable for local wheels, not pip's.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

DISTRIBUTIONS := core engine $(patsubst %/pyproject.toml,%,$(sort $(wildcard plugins/*/pyproject.toml contrib/*/pyproject.toml)))
NAMES := tunesmith $(addprefix tunesmith-,$(notdir $(DISTRIBUTIONS)))
INPUTS := Makefile constraints.txt pyproject.toml $(addsuffix /pyproject.toml,$(DISTRIBUTIONS)) \
	$(wildcard plugins/*/tunesmith.json contrib/*/tunesmith.json)

.PHONY: setup quickstart arithmetic test test-slow test-gpu fuzz plugin records lint metadata bench fire wheels wheels-check install-check docs site
.DEFAULT_GOAL := setup

setup: $(STAMP)

# Ours are reinstalled each time: uv would not notice that a tunesmith.json changed.
$(STAMP): $(INPUTS)
	@echo "setup: creating $(VENV) with $$($(PYTHON) --version)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	@echo "setup: installing torch, Tunesmith, its plugins and the tools; the first time takes minutes"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt $(addprefix --reinstall-package ,$(NAMES)) \
		torch==2.13.0 $(addprefix -e ./,$(DISTRIBUTIONS)) -e ".[dev]"
	@touch $@
	@echo "setup: done; next: make quickstart, or $(BIN)/tunesmith --help"

quickstart: export OMP_NUM_THREADS ?= 1
quickstart: $(STAMP)
	@rm -rf outputs/quickstart
	@echo "quickstart: a tiny model learns to answer short questions, from random weights, on the CPU, in about a minute."
	@echo "At the end, you see its answers before and after training, to questions that are not in its data."
	@echo "$$ tunesmith train examples/quickstart.yaml"
	@$(BIN)/tunesmith train examples/quickstart.yaml --output_dir outputs/quickstart

# A model that adds two numbers, half of them wrong, learns from rewards to be right: GRPO, GDPO with two rewards, RLOO.
arithmetic: export OMP_NUM_THREADS ?= 1
arithmetic: $(STAMP)
	@rm -rf outputs/*-arithmetic
	$(BIN)/tunesmith train examples/sft-arithmetic.yaml
	$(BIN)/tunesmith train examples/grpo-arithmetic.yaml
	$(BIN)/tunesmith train examples/grpo-arithmetic.yaml rl=gdpo output_dir=outputs/gdpo-arithmetic \
	    'rewards=[{name: exact_match, extract: "(\\d+)\\s*$$"}, {name: length, maximum: 20}]'
	$(BIN)/tunesmith train examples/grpo-arithmetic.yaml rl=rloo output_dir=outputs/rloo-arithmetic
	$(BIN)/python tools/learning_curve.py --gain 0.3 outputs/grpo-arithmetic
	$(BIN)/python tools/learning_curve.py --gain 0.1 outputs/gdpo-arithmetic outputs/rloo-arithmetic

# One thread per process: with more, two test workers slow each other down several times over.
test: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not gpu"

# What takes longer than a few seconds each: many kills, several processes, whole parities.
test-slow: export OMP_NUM_THREADS ?= 1
test-slow: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "slow and not gpu"

# Mutated configs and rows that no run before has seen; the tests take the same ones each time.
fuzz: export OMP_NUM_THREADS ?= 1
fuzz: $(STAMP)
	$(BIN)/python -m pytest -n 2 --hypothesis-profile fuzz tests/contract/test_mutated_configs.py tests/contract/test_mutated_rows.py

# Compare the reference runs with those of a base commit, bit for bit: about 3 minutes.
BASE ?= 3472fd8
records: export OMP_NUM_THREADS ?= 1
records: $(STAMP)
	$(BIN)/python tests/records/compare.py --base $(BASE)

# What needs a GPU; without one, every test says so and is skipped.
test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu -rs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/describe.py --check

# Write tunesmith.json of every plugin, and the core's catalogue, from the source.
metadata: $(STAMP)
	$(BIN)/python tools/describe.py

# The skeleton of a new plugin: make plugin WORD=name
plugin: $(STAMP)
	$(BIN)/python tools/new_plugin.py $(WORD)
	$(BIN)/python tools/describe.py
	$(MAKE) setup
	$(BIN)/python tools/docs.py
	@echo "test it: OMP_NUM_THREADS=1 $(BIN)/python -m pytest plugins/$(WORD)"

bench: export OMP_NUM_THREADS ?= 1
bench: $(STAMP)
	$(BIN)/python bench/run.py

# Hundreds of runs that are killed, refused by the disk or starved of room: about 8 minutes.
fire: $(STAMP)
	$(BIN)/python bench/fire.py

docs: $(STAMP)
	$(BIN)/python tools/docs.py

# The date of every file in a wheel (2 February 2020), whenever it is built: the same source makes the same bytes.
wheels: export SOURCE_DATE_EPOCH := 1580601600
wheels: $(STAMP)
	rm -rf $(DIST)
	for folder in . $(DISTRIBUTIONS); do \
		$(BIN)/uv build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir $(DIST) $$folder || exit 1; \
	done
	ls $(DIST)

# Build all again in another folder, and compare the bytes.
wheels-check: wheels
	$(BIN)/python tools/wheels_check.py $(DIST) $(DISTRIBUTIONS)

# What pip brings with the wheels into empty environments, and whether that works; takes minutes.
install-check: wheels
	$(BIN)/python tools/install_check.py $(DIST)

# The site of the documentation in build/site, with its links checked. SITE_URL=https://... adds sitemap.xml.
site: $(STAMP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --group site
	$(BIN)/python tools/site/build.py
