# What one does with this repository. `make` alone lists it.

GO            ?= go
GOLANGCI_LINT := v2.15.0
CACHE         := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/firstcome
LINT          := $(CACHE)/tools/golangci-lint-$(GOLANGCI_LINT)/golangci-lint
TEST_FLAGS    ?=

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: build
build: ## compile everything
	$(GO) build ./...
	cd bench && $(GO) build -o /dev/null ./...

.PHONY: test
test: ## run the tests, and say what was skipped since a server is not installed
	@$(GO) run ./internal/testenv/cmd/tests $(TEST_FLAGS) ./...

# One package at a time: each starts servers of its own, and under the race
# detector two of them at once leave neither the time its holds and leases allow.
.PHONY: test-race
test-race: ## run all tests with the race detector; a missing server fails them
	FIRSTCOME_REQUIRE_SERVERS=1 $(GO) test -race -p 1 -timeout 15m $(TEST_FLAGS) ./...

.PHONY: servers-install
servers-install: ## install Redis, PostgreSQL, MariaDB and Kafka for the tests (Debian)
	./internal/testenv/install.sh

.PHONY: servers
servers: ## start Redis, PostgreSQL and Kafka for use by hand, until ctrl-C
	@$(GO) run ./internal/testenv/cmd/servers

.PHONY: lint
lint: $(LINT) ## check the style of the code, and that go.mod is tidy
	$(GO) mod tidy -diff
	$(LINT) run ./...
	cd bench && $(LINT) run ./...

.PHONY: fmt
fmt: $(LINT) ## format the code
	$(LINT) fmt ./...
	cd bench && $(LINT) fmt ./...

.PHONY: tools
tools: $(LINT) ## install the linter into the user's cache

# Built from source at a pinned version, outside of go.mod: what a linter
# depends on is nothing that a user of the library should have to download.
$(LINT):
	GOBIN=$(dir $(LINT)) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

.PHONY: bench
bench: ## compare with the peers, side by side (needs Redis)
	cd bench && $(GO) run .

.PHONY: ci
ci: ## run what runs on each change
	.ci/run
