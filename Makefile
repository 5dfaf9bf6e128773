# LEGO-AR from a fresh machine: python3.11 or newer and make are all that must be there.
#   make demo    installs the wearer's and the operator's parts (no torch) and shows them at work
#   make test    installs everything and runs the tests

# Set on the command line (make demo OUT=...), never taken from the environment, where OUT may mean something else.
MODEL  = models/lego-nano
VENV   = .venv
DEMO   = .venv-demo
OUT    = out/demo
PYTHON = $(shell command -v python3.11 || command -v python3)
PYTEST =

PACKAGES := core/lego_core proto/lego_proto model/lego_model training/lego_training \
            export/lego_export server/lego_server client/lego_client
SOURCES  := $(shell find $(PACKAGES) -name '*.py' -o -name '*.yaml')
PIP      := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo images test lint format proto web clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    watch a wearer ask three questions; pictures and a film go to $(OUT)"
	@echo "make test    run every test (PYTEST=... passes arguments on)"
	@echo "make lint    ruff and mypy"
	@echo "make format  let ruff put the code in order"
	@echo "make proto   generate the protocol's Python code again"
	@echo "make web     check and build the web page (Node.js)"
	@echo "make images  the demo's pictures, for README and docs"
	@echo "make clean   remove environments, caches and outputs"
	@echo "Variables: MODEL=$(MODEL) VENV=$(VENV) DEMO=$(DEMO) OUT=$(OUT) PYTHON=$(PYTHON)"

# A stamp inside each environment says what it was made from; a change of that makes it again.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(call new-environment,$(VENV))
	@echo "installing everything (torch is large: this takes minutes)"
	@$(VENV)/bin/python $(PIP) -e ".[dev]"
	@touch $@

# The demo runs an installed copy, as users do, so it is installed again whenever a source file has changed.
$(DEMO)/.installed: pyproject.toml constraints.txt README.md $(SOURCES)
	$(call new-environment,$(DEMO))
	@echo "installing client and server (no torch)"
	@$(DEMO)/bin/python $(PIP) ".[client,server]"
	@touch $@

define new-environment
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(1)/bin/python || "$(PYTHON)" -m venv $(1)
endef

demo: $(DEMO)/.installed
	@$(DEMO)/bin/python tools/demo.py --model $(MODEL) --out $(OUT)

images: demo
	@mkdir -p docs/images
	cp $(OUT)/demo_*.png docs/images/
	@$(DEMO)/bin/python tools/overlay_pictures.py --demo $(OUT) --out docs/images

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(PYTEST)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy $(PACKAGES) tools examples

format: $(VENV)/.installed
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

proto: $(VENV)/.installed
	cd proto && $(abspath $(VENV))/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. \
	    lego_proto/v1/guidance.proto
	cd proto && $(abspath $(VENV))/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
	    lego_proto/v1/recording.proto

web:
	cd client/web && npm ci --no-audit --no-fund && npm run check && npm run build

clean:
	rm -rf $(VENV) $(DEMO) out client/web/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(PACKAGES) tests tools -name __pycache__ -prune -exec rm -rf {} +
