# One door for developers. CI calls the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .bench-venv
# The CPU build of torch; on a machine with a GPU, install the build for it first and set TORCH= to nothing.
TORCH ?= torch==2.13.0

.PHONY: demo test check bench docs dist format clean

demo: $(VENV)/.core ## install the core only and rank real passages with the bundled model
	@$(BIN)/crossrank rerank "which commit introduced the bug" examples/git-notes.txt --top-k 5

test: $(VENV)/.test ## install all that the tests need, and run them
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/.check ## style, types, import direction, files of deploy/
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/yamllint -d '{extends: relaxed, rules: {line-length: {max: 120}}}' deploy/compose.yaml deploy/chart/*.yaml

bench: $(VENV)/.test $(PEERS)/.bench ## side by side with other libraries, needs ../shared/data and a quiet machine
	$(BIN)/python -m benchmarks.throughput --json build/benchmarks/throughput.json
	$(BIN)/python -m benchmarks.startup --json build/benchmarks/startup.json

docs: $(VENV)/.docs ## the site, into build/site; a dead link fails
	$(BIN)/python scripts/site_pages.py
	$(BIN)/zensical build --strict

# It is installed in a new environment and run from another folder, where nothing of this one can be found.
dist: $(VENV)/.dist ## build wheel and source archive into dist/, check what is in them, and run the wheel
	rm -rf dist build/fresh
	$(BIN)/python -m build
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/pip install --quiet --disable-pip-version-check dist/*.whl
	cd / && printf 'git log\ngit reset --soft HEAD~1\n' | "$(CURDIR)/build/fresh/bin/crossrank" rerank "undo a commit" -

format: $(VENV)/.check
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(PEERS) dist build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

# infinity's client, which LangChain's adapter imports, asks for an older httpx than others do; it works with theirs.
$(VENV)/.test: $(VENV)/.core
	$(if $(TORCH),$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH))
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'infinity-client>=0.0.76'
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[check]'
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[docs,server]'
	@touch $@

$(VENV)/.dist: $(VENV)/.core
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dist]'
	@touch $@

# The other libraries, apart from ours: they hold transformers and huggingface-hub back. optimum-intel brings a torchvision
# for CUDA, which can't be imported beside the CPU build of torch and which nothing here needs.
$(PEERS)/.bench: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(if $(TORCH),$(PEERS)/bin/pip install --quiet --disable-pip-version-check $(TORCH))
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(if $(TORCH),$(PEERS)/bin/pip uninstall --quiet --yes torchvision)
	@touch $@
