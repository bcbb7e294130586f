# Everything one does with Odyssey. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run build up scale down check advisories test soak demo bench terraform-init terraform-apply

CARGO ?= cargo
# What is said to Terraform, a file in infra/: LocalStack, or one of yours.
TFVARS ?= localstack.tfvars
# Terraform does not check for newer versions of itself.
export CHECKPOINT_DISABLE = 1
# The part of infra/ that needs no provider, and so no network.
NAMES = TF_DATA_DIR=$(CURDIR)/target/terraform terraform -chdir=infra/names

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Run the server with embedded defaults: customers on 127.0.0.1:8000, staff on 127.0.0.1:8001
	$(CARGO) run --profile quick --locked -p odyssey --no-default-features -- serve

# The images name the commit they were built from; there is no repository inside the build.
build up scale: export ODYSSEY_COMMIT := $(or $(ODYSSEY_COMMIT),$(shell git rev-parse --short=12 HEAD 2>/dev/null))

build: ## Build the container images
	docker compose --profile demo build

up: ## The whole shop in containers: customers on port 80, staff on 127.0.0.1:8080; creates tokens in secrets/ on first use
	docker compose build
	scripts/create-secrets.sh
	docker compose up

scale: ## Two servers with one line in Redis, in containers, in place of `up` (docs/scaling.md)
	docker compose --profile scale build odyssey-a
	scripts/create-secrets.sh
	docker compose --profile scale up odyssey-a odyssey-b

down: ## Stop and remove the containers of every profile; held customers are served first, stored data stays
	docker compose --profile demo --profile observability --profile aws --profile redis --profile scale down

check: ## Formatting, lints, documentation, dependencies, shell scripts, infrastructure; installs what is missing
	scripts/install-tools.sh check
	scripts/check-words
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features odyssey/aws,odyssey/redis,simulators/aws --locked -- -D warnings
	$(CARGO) clippy -p odyssey --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --features odyssey/aws,odyssey/redis,simulators/aws --no-deps --document-private-items --locked
	$(CARGO) deny --locked --log-level error check bans licenses sources
	shellcheck $$(git ls-files '*.sh' .ci/run scripts/emulator)
	shfmt -d -i 2 $$(git ls-files '*.sh' .ci/run scripts/emulator)
	terraform fmt -check -diff -recursive infra
	$(NAMES) init -input=false -no-color >/dev/null
	$(NAMES) validate -no-color
	$(NAMES) test -no-color
	target/checkov/bin/checkov --directory infra --framework terraform --skip-download --quiet --compact

advisories: ## Known vulnerabilities in dependencies; from the network
	scripts/install-tools.sh advisories
	$(CARGO) deny --locked check advisories

test: ## Everything that can fail; installs what is missing
	scripts/install-tools.sh test
	$(CARGO) nextest run -p odyssey --no-default-features --locked --test default_build
	BY_ROUTER=1 $(CARGO) nextest run --test-threads $$((3 * $$(nproc))) --workspace --features odyssey/aws,odyssey/redis,simulators/aws --locked -E 'test(/^orders_/)'
	SHARED_LINE=1 $(CARGO) nextest run --test-threads $$((3 * $$(nproc))) --workspace --features odyssey/aws,odyssey/redis,simulators/aws --locked -E 'test(/^orders_/) - test(/both_ways|thousands_of/)'
	scripts/with-engines.sh $(CARGO) nextest run --test-threads $$((3 * $$(nproc))) --workspace --features odyssey/aws,odyssey/redis,simulators/aws --locked

soak: ## A thousand crashes of each desk, 500 flipped bits, a million rows, 50 examples of each operation, 20 failovers of each kind of Redis, 20 losses of each kind around a shared line, and 1,200 random sequences of operations on a shared line
	SOAK_ROUNDS=1000 SOAK_FLIPS=500 SOAK_SCENARIOS=100 SOAK_ROWS=1000000 SOAK_EXAMPLES=50 $(CARGO) nextest run -p odyssey --locked --profile soak -E 'test(killed_again_and_again) or test(flipped_bit) or test(many_times_in_a_row) or test(many_rows) or test(answer_as_they_are_described)'
	SOAK_FAILOVERS=20 $(CARGO) nextest run -p odyssey --features redis --locked --profile soak --test-threads 1 -E 'test(a_failover)'
	$(CARGO) nextest run -p odyssey --features redis --locked --profile soak --test-threads 1 --stress-count 20 -E 'test(/^shared_line/)'
	SOAK_SCHEDULES=3000 $(CARGO) nextest run -p odyssey --features redis --locked --profile soak -E 'test(/shared::model_checked/)'
	SOAK_LINES=20 $(CARGO) nextest run -p odyssey --features redis --locked --profile soak -E 'test(/orders::redis/)'

demo: ## A rush of customers with a flooder in their midst, through nginx, a hundred times faster than life, with a report
	simulators/demo.sh

bench: ## Measure against real peers, side by side; installs them if they are missing
	bench/install-peers.sh && $(CARGO) build --release --locked -p odyssey -p bench
	$${CARGO_TARGET_DIR:-target}/release/bench run $$(test "$$(nproc)" -lt 2 || echo --pin)

terraform-init: ## Get ready what infra/ needs; from the network
	terraform -chdir=infra init -input=false

terraform-apply: ## What infra/ describes, on LocalStack at once; elsewhere with TFVARS=prod.tfvars, and it asks before
	terraform -chdir=infra apply -var-file=$(TFVARS) $(if $(filter localstack.tfvars,$(TFVARS)),-auto-approve)
