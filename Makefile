# What a person types. Each target makes the clone ready first (scripts/setup), which costs nothing when it is.
# ARGS goes to the command: `make demo ARGS="--posts 20000"`, `make test ARGS="-p tamiz-udfs pii"`.
ARGS ?=

.PHONY: setup demo test check bench faults
.DEFAULT_GOAL := demo

setup: ## tools, the .cache link, libtorch
	@scripts/setup

demo: setup ## posts through the whole pipeline into a table, and SQL about them
	@cargo build --locked -p tamiz --bin tamiz
	@cargo run --locked -q -p tamiz -- demo $(ARGS)

test: ## all tests, against a real Kafka (TAMIZ_KAFKA: your own) and an S3 server; TAMIZ_DATA: the data folder
	@scripts/setup tests
	@scripts/test $(ARGS)

check: setup ## format, lints, documentation, dependencies
	@scripts/check

bench: setup ## measurements; results belong in benchmarks/results
	@cargo bench --profile dev --workspace --bench stages --bench end_to_end $(ARGS)

faults: ## what breaks, many times over, and whether the delivery holds; about an hour; writes benchmarks/results/faults.md
	@scripts/setup tests
	@scripts/faults $(ARGS)
