# Penstock. `make` lists the targets. Modules are taken from go.work by the go
# command, never by hand.

.DEFAULT_GOAL := help
GOFUMPT := mvdan.cc/gofumpt@v0.12.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build every binary into bin/
	@mkdir -p bin
	go build -o bin/ $$(go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' work | grep -v /internal/)

.PHONY: test
test: ## the one test command: unit, integration with a real Kafka, Redis and S3, end to end
	@scripts/test.sh

.PHONY: test-e2e
test-e2e: ## only the end-to-end tests
	@scripts/test.sh e2e

.PHONY: test-llm
test-llm: ## end to end on llama.cpp and a real model (130 MB, once): stops free its slots, official clients
	@scripts/test.sh llm

.PHONY: test-mutants
test-mutants: ## break each guarantee on purpose; the tests must notice (minutes)
	go run ./cmd/mutants

.PHONY: test-sim
test-sim: ## the whole pipeline in one process under faults from seeds; PENSTOCK_SIM_SEEDS, PENSTOCK_SIM_SEED
	PENSTOCK_SIM_SEEDS=$${PENSTOCK_SIM_SEEDS:-300} go test -count=1 -timeout 0 -run TestSimulation ./cmd/sim

.PHONY: test-faults
test-faults: ## each fault of the matrix once, on real processes; about 15 minutes
	@scripts/faults.sh faults

.PHONY: test-chaos
test-chaos: ## random faults from seeds on three brokers; PENSTOCK_CHAOS_SEEDS, PENSTOCK_CHAOS_SEED
	@scripts/faults.sh chaos

.PHONY: soak
soak: ## HOURS of load with a fault now and then
	@PENSTOCK_SOAK_HOURS=$(or $(HOURS),1) scripts/faults.sh soak

.PHONY: check
check: ## format, vet, staticcheck, import rules, every module alone
	@scripts/check.sh

.PHONY: proto
proto: ## lint the gRPC contract and write its code
	@scripts/proto.sh

.PHONY: fmt
fmt: ## format the code
	go run $(GOFUMPT) -l -w $$(go list -m -f '{{.Dir}}')

.PHONY: dev
dev: build ## run everything in one process, until Ctrl-C
	bin/penstock dev

.PHONY: demo
demo: build ## the guided tour: batch, stream, poison, redrive; no Docker, no network
	bin/penstock demo

.PHONY: demo-llm
demo-llm: build ## the same against a real engine on the CPU, real Kafka and Redis
	scripts/demo-llm.sh

.PHONY: bench
bench: build ## load against the running system, with a bare handler as its baseline
	scripts/bench.sh

.PHONY: clean
clean: ## stop the test servers and delete what was built
	scripts/kafka.sh down
	scripts/redis.sh down
	scripts/s3.sh down
	rm -rf bin build
