# Each target sets up all that it needs; what is there already costs a second.
#   PYTHON           the interpreter that makes .venv (default python3)
#   COMFYUI_PATH     a ComfyUI you already have; else one is fetched
#   COMFYUI_PYTHON   an environment you already have; else .venv is made
.DEFAULT_GOAL := help
.PHONY: help install chromium demo test ui lint bench screenshots clean

PYTHON ?= python3
RUN := $(or $(COMFYUI_PYTHON),.venv/bin/python)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## get ComfyUI and all Python packages (the other targets do this themselves)
	@$(PYTHON) tools/install.py

chromium: install
	@$(RUN) tools/chromium.py

demo: install  ## a real ComfyUI, one video plain and steered, the difference in demo/out/
	@$(RUN) demo/run.py

test: install chromium  ## all tests: units, real ComfyUI, real frontend
	@$(RUN) -m pytest tests --durations=15

ui: install  ## serve ComfyUI with the pack, tiny models and the workflows; prints its address
	@$(RUN) demo/playground.py

lint: install  ## ruff and mypy
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

bench: install  ## speed and memory of a steered run against a plain one
	@$(RUN) bench/overhead.py --memory
	@$(RUN) bench/overhead.py

screenshots: install chromium  ## renew docs/images and the workflows' thumbnails
	@$(RUN) -m pytest tests/browser --update-docs

clean:  ## remove what tests and demo wrote (not .venv, not the cached ComfyUI)
	rm -rf demo/out tests/artifacts .pytest_cache tests/.pytest_cache .mypy_cache .ruff_cache .hypothesis tests/.hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
