# Each target sets up all that it needs; what is there already costs a second.
#   PYTHON           the interpreter that makes .venv (default python3)
#   COMFYUI_PATH     a ComfyUI you already have; else one is fetched
#   COMFYUI_PYTHON   an environment you already have; else .venv is made
.DEFAULT_GOAL := help
.PHONY: help install chromium demo guardrail-demo hero small-world small-world-second small-world-report portable-vector test \
	ui lint bench soak test-frontends test-matrix models-doc workflows locales screenshots clean

PYTHON ?= python3
RUN := $(or $(COMFYUI_PYTHON),.venv/bin/python)

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## get ComfyUI and all Python packages (the other targets do this themselves)
	@$(PYTHON) tools/install.py

chromium: install
	@$(RUN) tools/chromium.py

demo: install  ## a real ComfyUI, 16 prompts of the small world plain and steered, judged; pictures in demo/out/
	@$(RUN) tools/start.py run

guardrail-demo: install  ## a guarded server, hostile graphs, and what became of each
	@$(RUN) tools/start.py guardrail_demo

small-world: install  ## rebuild the small world from nothing: models, judge, directions, tables (6 hours, resumes)
	@$(RUN) tools/start.py small_world.build

small-world-second: install  ## train and measure the small world's second generator (5 hours of one core, resumes)
	@$(RUN) tools/start.py small_world.second.build

test: install chromium  ## all tests: units, real ComfyUI, real frontend; some on a newer frontend
	@$(RUN) -m pytest tests --durations=15
	@$(RUN) -m pytest tests/browser -m both_frontends --newer-frontend

test-frontends: install chromium  ## all browser tests, on ComfyUI's own frontend and on a newer one
	@$(RUN) -m pytest tests/browser
	@$(RUN) -m pytest tests/browser --newer-frontend

ui: install  ## serve ComfyUI with the pack, tiny models and the workflows; prints its address
	@$(RUN) tools/start.py playground

lint: install  ## ruff and mypy
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

small-world-report: install  ## figures and tables of the small world from results; measures what is missing (hours)
	@$(RUN) tools/start.py small_world.native.report
	@$(RUN) tools/start.py small_world.portable.report
	@$(RUN) tools/start.py small_world.native.figures

hero: install  ## renew the strip at the top of the README, from the small world
	@$(RUN) tools/start.py small_world.portable.hero

portable-vector: install  ## rebuild the bundled portable vector from SmolLM2 and the bundled prompts
	@$(RUN) tools/start.py portable_vector

bench: install  ## speed and memory of a steered run against a plain one
	@$(RUN) tools/start.py overhead --predict
	@$(RUN) tools/start.py overhead --memory
	@$(RUN) tools/start.py overhead
	@$(RUN) tools/start.py fit
	@$(RUN) tools/start.py capture

soak: install  ## a guarded server under many clients, policy changes and interrupts
	@$(RUN) tools/start.py soak

test-matrix: install  ## the tests on an older ComfyUI, other Pythons and the lowest packages; is a newer ComfyUI offered?
	@$(RUN) tools/start.py matrix
	@$(RUN) tools/start.py environments

workflows: install  ## build the workflows from ComfyUI's own templates again
	@$(RUN) tools/start.py workflow_builder.build

locales: install  ## renew locales/ from the nodes, js/settings.js and tools/translations
	@$(RUN) tools/start.py locales

models-doc: install  ## renew docs/models.md from the model map and its cases
	@$(RUN) tools/start.py models_doc

screenshots: install chromium  ## renew docs/images and the workflows' thumbnails
	@$(RUN) -m pytest tests/browser --update-docs

clean:  ## remove what tests and demo wrote (not .venv, not the cached ComfyUI)
	rm -rf demo/out tests/artifacts .pytest_cache tests/.pytest_cache .mypy_cache .ruff_cache .hypothesis tests/.hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
