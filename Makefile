# Everything a person needs to type. On a fresh Debian 12 first, once:
#   apt-get install -y make git ca-certificates python3-venv
SHELL := /bin/sh
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME VIRTUAL_ENV

BIN := .venv/bin
comma := ,
COMPILE := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --universal --python-version 3.11 $(if $(UPGRADE),--upgrade)

.PHONY: help demo env env-demo test check lint bench verifier docs lock clean

help: ## What can be made here.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: env-demo ## A model from a commit into production and back again, on this machine.
	@$(BIN)/falaj demo

env-demo:
	@requirements/install.sh demo

env: ## The environment for development: .venv, hash-pinned.
	@requirements/install.sh dev

test: env ## All tests: make test [PARTS=mlflow,ray] with heavy outside systems, too.
	@requirements/servers.sh
	@for part in $(subst $(comma), ,$(PARTS)); do requirements/part.sh $$part || exit 1; done
	$(BIN)/python -m pytest -n auto $(if $(PARTS),--parts $(PARTS)) $(ARGS)

lint: env ## Format, lint, types, floors.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint test ## What has to be green before a change lands.

bench: env ## One benchmark: make bench NAME=startup [QUICK=1].
	@$(BIN)/python -m bench $(NAME) $(if $(QUICK),--quick)

verifier: env ## What an auditor runs, as one file: build/falaj-verify.pyz.
	@$(BIN)/python -m falaj.doors.verifier.build build/falaj-verify.pyz

docs: env ## The documentation, as HTML below build/docs.
	$(BIN)/sphinx-build -q -W -b html docs build/docs

lock: env ## Pin again what pyproject.toml asks for: make lock [UPGRADE=1].
	$(COMPILE) --group pyproject.toml:tool -o requirements/uv.txt
	$(COMPILE) --group pyproject.toml:sdist -o requirements/sdist.txt
	$(COMPILE) pyproject.toml --extra flights --extra mortgage --extra delta --extra duckdb --extra pkcs11 --extra grpc --group dev -o requirements/dev.txt
	$(COMPILE) pyproject.toml -c requirements/dev.txt -o requirements/core.txt
	$(COMPILE) pyproject.toml --extra flights --group build -c requirements/dev.txt -o requirements/demo.txt
	for part in $(basename $(notdir $(wildcard requirements/parts/*.in))); do \
		$(COMPILE) pyproject.toml --extra data --extra sklearn --group test --group build requirements/parts/$$part.in \
			-o requirements/parts/$$part.txt || exit 1; done
	for peer in mlflow modelsigning zenml pandera pointblank greatexpectations evidently hamilton flyte flyteframes prefect zenmlframes kedro dvc metaflow fastapi mlflowserve mlserver litserve rayserve bentoml kserve; do \
		$(COMPILE) bench/requirements/$$peer.in -o bench/requirements/$$peer.txt || exit 1; done

clean: ## Forget everything that was made here.
	rm -rf build dist .venv bench/.envs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests bench examples docs -name __pycache__ -type d -prune -exec rm -rf {} +
