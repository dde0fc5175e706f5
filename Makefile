.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: setup
setup: ## Install system packages, fetch XLA and build the CPU plugin (once)
	@scripts/setup.sh

.PHONY: build
build: setup ## Build all programs
	@cargo build --release --workspace

.PHONY: quickstart
quickstart: build ## Synthetic data, a small model on two hosts, its metrics: minutes on two cores
	@target/release/sft-prep sample --out runs/quickstart/data
	@target/release/sft-launch --local --hosts 2 --config configs/quickstart.yaml

.PHONY: test
test: build ## Run all tests
	@cargo test --release --workspace

.PHONY: bench-train
bench-train: build ## Measure training: a JSON line a case
	@target/release/sft-bench train

.PHONY: lint
lint: setup ## Check formatting and lints
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings
