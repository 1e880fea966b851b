# The one way into this repository. Every target makes its own virtual environment: nothing to install first but
# python3 (3.11 or later), python3-venv and make.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# A target that can use more than one core does; JOBS=0 runs tests in one process.
JOBS ?= auto

PLUGINS := generic intel mellanox mock softnic solarflare
PLUGIN_DIRS := $(addprefix plugins/,$(PLUGINS))
METADATA := pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGIN_DIRS))
EDITABLE_PLUGINS := $(addprefix -e ,$(PLUGIN_DIRS))
TYPED := nicoffload $(foreach p,$(PLUGINS),plugins/$(p)/nicoffload_$(p))
PYTEST := $(PY) -m pytest
DOCTEST := $(PYTEST) -q -p no:randomly --doctest-modules nicoffload

# Editable installs name this folder: an environment that was copied with the tree would run the original's code.
ifneq ($(file <$(VENV)/.stamp-root),$(CURDIR))
$(shell rm -f $(VENV)/.stamp-*)
endif

.DEFAULT_GOAL := help
.PHONY: help bpf demo lab test test-vm lint check docs bench fuzz golden support clean
.DELETE_ON_ERROR:

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp-run  ## Place the flows of a real capture on an emulated NIC, and write a report
	@mkdir -p build/demo
	@$(VENV)/bin/flexivoffload replay examples/captures/office.pcap.gz --nic mock:sfn5122f \
	    --policy examples/policies/office.yaml --vms examples/captures/office.vms.json --html build/demo/report.html

lab:  ## Measure with real packets what offloading does on this machine; needs root
	@[ "$$(id -u)" -eq 0 ] || { echo "lab: needs root for its network namespaces: run \`sudo make lab\`;" \
	    "without root, \`make demo\` replays a capture on an emulated NIC instead" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || ! command -v apt-get >/dev/null \
	    || { echo "lab: installing python3-venv"; apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null; }
	@$(MAKE) --silent --no-print-directory $(VENV)/.stamp-run
	@$(PY) -m examples.lab $(if $(filter-out 0 no,$(QUICK)),--quick) $(if $(VMS),--vms '$(VMS)')

test: $(VENV)/.stamp-dev  ## Run every test
	@echo "test: every test of tests/ and plugins/*/tests"
	@$(PYTEST) -n $(JOBS) --dist loadgroup
	@echo "test: doctests"
	@$(DOCTEST)

test-vm: $(VENV)/.stamp-dev  ## Run the tests that need a real kernel, in user-mode Linux and in QEMU
	@$(PY) -m tests.vm.rig $(if $(VM),--vm '$(VM)') $(if $(K),-k '$(K)') $(if $(TIME_LIMIT),--time-limit '$(TIME_LIMIT)')

lint: $(VENV)/.stamp-dev  ## Lint, check types and imports
	@echo "lint: ruff"
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@echo "lint: mypy --strict"
	@$(PY) -m mypy $(TYPED) $(wildcard examples/*.py) examples/lab
	@echo "lint: import contracts"
	@$(VENV)/bin/lint-imports --no-logo

check: lint  ## Lint, check types and imports, run the fast tests and the doctests
	@echo "check: fast tests"
	@$(PYTEST) -n $(JOBS) --dist loadgroup -m "not slow"
	@echo "check: doctests"
	@$(DOCTEST)

docs: $(VENV)/.stamp-dev  ## Build the documentation into build/docs; a warning is an error
	@echo "docs: building build/docs/index.html"
	@rm -rf docs/reference/api
	@$(PY) -m sphinx -q -n -T -W --keep-going docs build/docs

bench: $(VENV)/.stamp-dev  ## Measure; print the figures and write build/bench.json
	@mkdir -p build
	@$(PY) tests/bench/run.py

fuzz: $(VENV)/.stamp-dev  ## Give every decoder of the kernel layer and the fake a million damaged messages (half an hour)
	@$(PY) -m tests.fuzz $(if $(MESSAGES),--messages '$(MESSAGES)') $(if $(SEED),--seed '$(SEED)') $(DECODERS)

# Debian 12's clang 14 makes exactly the object that is checked in; a test compares where that is installed.
BPF := plugins/softnic/nicoffload_softnic/data_path/softnic.bpf
BPF_FLAGS := -target bpf -mcpu=v3 -O2 -g0 -fno-ident -Wall -Wextra -Werror -I/usr/include/$(shell uname -m)-linux-gnu
bpf:  ## Compile the software NIC's data path (needs clang 14 and linux-libc-dev)
	cd $(dir $(BPF)) && clang $(BPF_FLAGS) -c $(notdir $(BPF)).c -o $(abspath $(or $(OUT),$(BPF).o))

support: $(VENV)/.stamp-dev  ## Run the conformance kit over every plugin and rewrite the support matrix (some minutes)
	@$(PY) -m tests.conformance.support $(FAMILIES)

golden: $(VENV)/.stamp-dev  ## Rewrite the golden files; review the diff
	@$(PYTEST) --golden

clean:  ## Remove the environment and all that was built
	rm -rf $(VENV) build dist docs/reference/api .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# The build backend goes in first, so that that many editable installs need no build environments.
$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "nicoffload needs Python 3.11 or later; run: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "set-up: making $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV) \
	    || { echo "python3 can't make an environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt hatchling editables
	@printf %s '$(CURDIR)' > $(VENV)/.stamp-root
	@touch $@

INSTALL = $(PY) -m pip install -qq --disable-pip-version-check --no-build-isolation -c constraints.txt

$(VENV)/.stamp-run: $(METADATA) | $(VENV)/.stamp-venv
	@echo "set-up: installing nicoffload, its plugins and what the report needs"
	@$(INSTALL) -e '.[report]' $(EDITABLE_PLUGINS)
	@touch $@

$(VENV)/.stamp-dev: $(METADATA) | $(VENV)/.stamp-venv
	@echo "set-up: installing nicoffload, its plugins and the tools that check them (a minute or two)"
	@$(INSTALL) -e '.[dev,docs,report,test]' $(EDITABLE_PLUGINS)
	@touch $@ $(VENV)/.stamp-run
