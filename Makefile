GO          ?= go
FUZZTIME    ?= 30s
BENCHTIME   ?= 1s
BENCHCOUNT  ?= 1
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

.DEFAULT_GOAL := help
.PHONY: build test race fuzz bench demo lint interop help

build: ## build ipsecd and setkey into ./bin
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/...

# -count=1: the cache does not see that internal/e2e builds the programs, nor
# that internal/imports lists the packages.
test: ## run all tests, end to end where namespaces and /dev/net/tun are there
	$(GO) test -count=1 ./...
	cd bench && $(GO) test -count=1 ./...
	@(: <>/dev/net/tun) 2>/dev/null || echo "note: end-to-end tests were skipped: no access to /dev/net/tun"
	@command -v tshark >/dev/null || echo "note: tests against tshark were skipped: it is not installed"
	@for python in python3 /usr/bin/python3; do $$python -c 'import scapy, cryptography' 2>/dev/null && exit; done; \
		echo "note: tests against scapy were skipped: python3-scapy and python3-cryptography are not installed"

race: ## run all tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -count=1 -race ./...

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: ## run all benchmarks BENCHCOUNT (1) times for BENCHTIME (1s); benchstat(1) wants 10
	$(GO) test -run '^$$' -bench . -benchmem -count $(BENCHCOUNT) -benchtime $(BENCHTIME) ./...
	cd bench && $(GO) test -run '^$$' -bench . -benchmem -count $(BENCHCOUNT) -benchtime $(BENCHTIME) ./...

demo: build ## build, then show two hosts talking through ESP
	./bin/ipsecd demo

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$($$($(GO) env GOROOT)/bin/gofmt -l .); \
		if [ -n "$$unformatted" ]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	cd bench && $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd bench && $(GO) run $(STATICCHECK) ./...

interop: ## run the tests against other IPsec implementations; missing ones fail
	IPSECD_INTEROP=required $(GO) test -count=1 -run '^TestInterop' ./...

help: ## print this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10
