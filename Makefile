# Everything one does with Odyssey. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run up check test soak demo bench

CARGO ?= cargo

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run the server with embedded defaults: customers on 127.0.0.1:8000, staff on 127.0.0.1:8001
	$(CARGO) run --release --locked -p odyssey -- serve

up: ## The whole shop in containers: customers on port 80, staff on 127.0.0.1:8080
	docker compose up --build

check: ## Formatting, lints, documentation, dependencies, shell scripts; installs what is missing
	scripts/install-tools.sh check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items --locked
	$(CARGO) deny --locked --log-level error check bans licenses sources
	shellcheck $$(git ls-files '*.sh' .ci/run)
	shfmt -d -i 2 $$(git ls-files '*.sh' .ci/run)

test: ## Everything that can fail; installs what is missing
	scripts/install-tools.sh test
	$(CARGO) test --workspace --doc --locked
	$(CARGO) nextest run --workspace --locked

soak: ## A thousand crashes of each desk instead of a few
	SOAK_ROUNDS=1000 $(CARGO) nextest run -p odyssey --locked --profile soak -E 'test(killed_again_and_again)'

demo: ## A rush of customers with a flooder in their midst, through nginx, a hundred times faster than life, with a report
	simulators/demo.sh

bench: ## Measure against real peers, side by side; installs them if they are missing
	bench/install-peers.sh
	$(CARGO) bench --locked -p bench --bench line
	$(CARGO) build --release --locked -p odyssey -p bench
	$${CARGO_TARGET_DIR:-target}/release/bench run
