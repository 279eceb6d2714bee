# The verbs of this project. Each sets up what it needs, once: .venv with the pinned versions.
#     make ask      install, and answer a question about the example clip
#     make test     every test            make check    formatting, lint, types
#     make fix      format and lint-fix   make docs     docs/cli.md, the table of docs/families.md, README's transcript
#     make nano     train the embedded model again (hours)

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
WORKERS ?= 2

.PHONY: ask test check fix docs types nano clean

ask: $(VENV)/.installed
	$(BIN)/vidllava ask examples/clip.mp4 "what happens"

# One thread for each worker: torch processes that share cores with two threads each are far slower.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

check: $(VENV)/.installed-dev types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache

fix: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.cli.test_reference
	$(BIN)/python -m tests.test_documents
	$(BIN)/python -m tests.models.test_families_page

# The packages laid out as they are imported (vidllava.cli is cli/, vidllava.kernels is kernels/ops/):
# mypy does not follow the import hook through which an editable install does this.
types:
	@rm -rf build/types && mkdir -p build/types/vidllava
	@ln -s "$(CURDIR)"/vidllava/* build/types/vidllava/
	@ln -s "$(CURDIR)"/cli build/types/vidllava/cli
	@ln -s "$(CURDIR)"/kernels/ops build/types/vidllava/kernels

nano: $(VENV)/.installed
	$(BIN)/python -m examples.train_nano.train

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps are newer than what they were made from, so nothing is installed twice.
$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev,triton]"
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): a minute or two, most of it for PyTorch"
	$(PIP) -e .
	@touch $@

# python3.11 by name first; a shim that stands for no interpreter fails the version question and is passed by.
$(BIN)/python:
	@for python in python3.11 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; exec "$$python" -m venv $(VENV); \
	  fi; \
	done; echo "error: python: 3.11 or newer not found (install python3.11 and its venv module)" >&2; exit 1
