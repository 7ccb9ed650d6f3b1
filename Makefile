# What newcomers and CI type. Everything longer than a line is in scripts/.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench chaos model setup compose-test

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Build, start standalone, run an example on real data, serve until Ctrl-C
	cargo build --profile demo --bin gristmill --bin gristmill-data
	@scripts/demo.sh

test: setup ## Install what is missing (as root on Debian) and run every test
	scripts/test.sh

# `clippy` checks the whole workspace, the data engine with it. Its dependencies are compiled a second time for that, in
# check mode; it is the price of one command that means the same here, in an editor and in CI.
lint: ## Check formatting, and clippy on every target with warnings as errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings

bench: ## Measure every figure that has a target, but for chaos (PEERS=celery, airflow or both: they beside it)
	@scripts/setup.sh servers
	scripts/bench.sh

chaos: ## Break everything by a schedule under load, and check what is left (SEED=… FAULTS=300 TASKS=100000)
	@scripts/setup.sh servers
	scripts/chaos.sh

model: ## Check larger deployments of the protocol's model than `make test` does; MODEL=NAME for one, --help for more
	cargo run --release -p gristmill-model -- $(MODEL)

setup: ## Install the servers and tools that the tests need, or name them
	@scripts/setup.sh all

compose-test: ## Only the compose test, with the binaries of target/debug
	@scripts/setup.sh compose
	compose/test.sh
