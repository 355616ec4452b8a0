# Both commands set up what they need in .venv: a machine needs only Python and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test docs clean

demo: $(VENV)/demo.stamp
	@bash benchmarks/demo.sh $(BIN)

# Two workers with a thread each: threads of both on the same two cores take twice as long, and a third
# worker makes it no faster. Each takes tests in their order, so that what a module's tests share is made
# once.
test: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --num-workers 2
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# To be read at site/index.html, without a server. `make test` builds it too, and checks it.
docs: $(VENV)/test.stamp
	$(BIN)/mkdocs build --strict

# PyTorch comes first: on Linux a bare `pip install torch` fetches gigabytes of CUDA libraries that
# neither command needs, and an index of CPU builds, where one is configured, is tried by version.
# Of 15,000 files few are ever imported: each is compiled then, not all of them first.
$(VENV)/torch.stamp: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/demo.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/test.stamp: $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist site
