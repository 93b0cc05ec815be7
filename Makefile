# make            shows the targets
# Every target may be interrupted; what it started is cleaned up.
SHELL   := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
PREFIX  ?= /usr/local
BENCH   ?=
OUT     ?= out

CONTAINERD_VERSION := github.com/containerd/containerd/v2/version
LDFLAGS := -s -w -X main.version=$(VERSION) \
	-X $(CONTAINERD_VERSION).Package=github.com/crsc-io/crsc -X $(CONTAINERD_VERSION).Version=$(VERSION)
BUILD   := CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)'
# One package at a time: root tests measure time and share two cores. The
# compiler runs in parallel all the same, in the step before.
GOTEST  := go test -race -count=1 -vet=off -p 1 -timeout 20m

# make sends the signal that ends it on to what it runs; "exec" lets it reach
# the program instead of a shell around it.

.PHONY: help
help: ## show this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: setup
setup: ## install what the tests and the demo need, into a cache; 4 min the first time
	@exec testing/env/install

.PHONY: criu
criu: ## build only CRIU, with our patches and without, into the cache
	@exec testing/env/install packages criu

.PHONY: build
build: ## build bin/containerd-shim-crsc-v1, bin/crsc and bin/crsc-node
	@mkdir -p bin
	$(BUILD) -o bin/containerd-shim-crsc-v1 ./cmd/containerd-shim-crsc-v1
	$(BUILD) -o bin/crsc ./cmd/crsc
	$(BUILD) -o bin/crsc-node ./cmd/crsc-node

.PHONY: demo
demo: setup build ## five crashes under load, and what clients noticed; half a minute
	@CGO_ENABLED=0 go build -o bin/testing/crsc-demo ./testing/demo/cmd/crsc-demo
	@exec bin/testing/crsc-demo -kills 5 -out $(OUT)/demo.json $(ARGS)

.PHONY: soak
soak: setup build ## 200 crashes under load, and whether the shim grows; ten minutes
	@CGO_ENABLED=0 go build -o bin/testing/crsc-demo ./testing/demo/cmd/crsc-demo
	@exec bin/testing/crsc-demo -instance soak -kills 200 -duration 8m -watch -out $(OUT)/soak.json $(ARGS)

.PHONY: workloads
workloads: setup build ## real services killed 100 times each; memory and files must agree; ten minutes
	@CGO_ENABLED=0 go build -o bin/testing/crsc-workloads ./testing/workloads/cmd/crsc-workloads
	@exec bin/testing/crsc-workloads -kills 100 -out $(OUT)/workloads.json $(ARGS)

.PHONY: egress
egress: setup build ## 100 crashes of an application that calls another server, and whether each call came once; two minutes
	@CGO_ENABLED=0 go build -o bin/testing/crsc-egress ./testing/egress/cmd/crsc-egress
	@exec bin/testing/crsc-egress -kills 100 -out $(OUT)/egress.json $(ARGS)

.PHONY: datagrams
datagrams: setup build ## 100 crashes of a UDP server, and whether each datagram was taken once; two minutes
	@CGO_ENABLED=0 go build -o bin/testing/crsc-datagrams ./testing/datagrams/cmd/crsc-datagrams
	@exec bin/testing/crsc-datagrams -kills 100 -out $(OUT)/datagrams.json $(ARGS)

.PHONY: torture
torture: setup build ## the field's own test tools, direct and through the proxy, must find the same, also while the server is killed; four minutes
	@exec testing/env/install deb nghttp2-client iperf3 postgresql-client
	@CGO_ENABLED=0 go build -o bin/testing/crsc-torture ./testing/torture/cmd/crsc-torture
	@exec bin/testing/crsc-torture -out $(OUT)/torture.json $(ARGS)

.PHONY: test
test: setup build lint ## everything, with the race detector, as root; under 25 min
	@exec go build -race ./...
	@exec testing/env/env exec --down -- $(GOTEST) ./...

.PHONY: critest
critest: setup build ## the CRI conformance suite with the stock shim and with ours; six minutes
	@exec testing/env/install critest
	@CGO_ENABLED=0 go build -o bin/testing/crsc-critest ./testing/critest/cmd/crsc-critest
	@CGO_ENABLED=0 go build -ldflags '-s -w' -o bin/testing/critest-program ./testing/critest/program
	@exec bin/testing/crsc-critest -out $(OUT)/critest.json $(ARGS)

.PHONY: client-tests
client-tests: setup build ## containerd's own tests of a runtime with the stock shim and with ours; fifteen minutes
	@exec testing/env/install clienttest
	@CGO_ENABLED=0 go build -o bin/testing/crsc-critest ./testing/critest/cmd/crsc-critest
	@CGO_ENABLED=0 go build -ldflags '-s -w' -o bin/testing/critest-program ./testing/critest/program
	@exec bin/testing/crsc-critest -suite client -out $(OUT)/client-tests.json $(ARGS)

.PHONY: cri-tests
cri-tests: setup build ## containerd's own tests of its CRI plugin with the stock shim and with ours; ten minutes
	@exec testing/env/install deb lsof strace procps
	@exec testing/env/install clienttest
	@CGO_ENABLED=0 go build -o bin/testing/crsc-critest ./testing/critest/cmd/crsc-critest
	@CGO_ENABLED=0 go build -ldflags '-s -w' -o bin/testing/critest-program ./testing/critest/program
	@exec bin/testing/crsc-critest -suite criserver -out $(OUT)/cri-tests.json $(ARGS)

.PHONY: k8s
k8s: setup build ## a real Kubernetes with crsc from deploy/; ten minutes, the first time twenty
	@exec testing/env/install kubernetes node dist
	@CGO_ENABLED=0 go build -o bin/testing/crsc-k8s ./testing/k8s/cmd/crsc-k8s
	@exec bin/testing/crsc-k8s -out $(OUT)/k8s.json $(ARGS)

.PHONY: matrix
matrix: setup build ## every supported containerd with every supported runc; the first time it builds them
	@CGO_ENABLED=0 go build -o bin/testing/crsc-matrix ./testing/matrix/cmd/crsc-matrix
	@exec bin/testing/crsc-matrix -out $(OUT)/matrix.json $(ARGS)

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, import directions
	@unformatted=$$(gofmt -l $$(find . -name '*.go' -not -path './bin/*' -not -path './.*')); \
	if [ -n "$$unformatted" ]; then echo "gofmt: $$unformatted"; exit 1; fi
	@exec go run ./testing/lint/cmd/crsc-lint
	@exec go vet ./...
	@PATH=$$(testing/env/cachedir)/bin:$$PATH; exec staticcheck ./...

.PHONY: bench
bench: setup build ## make bench BENCH=recovery; without BENCH: shows the names
	@if [ -z '$(BENCH)' ]; then ls testing/bench/cmd 2>/dev/null || echo 'no benchmarks'; exit 2; fi; \
	if [ ! -d 'testing/bench/cmd/$(BENCH)' ]; then echo 'no benchmark $(BENCH)'; exit 2; fi
	@if [ '$(BENCH)' = freeze ]; then exec testing/env/install podman; fi
	@CGO_ENABLED=0 go build -o bin/testing/bench-$(BENCH) ./testing/bench/cmd/$(BENCH)
	@exec bin/testing/bench-$(BENCH) -out $(OUT)/bench/$(BENCH).json $(ARGS)

.PHONY: install
install: build ## install into DESTDIR/PREFIX/bin
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 bin/containerd-shim-crsc-v1 bin/crsc bin/crsc-node '$(DESTDIR)$(PREFIX)/bin/'

.PHONY: node-image
node-image: build ## the image of the DaemonSet in deploy/, as an OCI archive in out/dist
	@exec testing/env/install node
	@exec go run ./deploy/cmd/node-image -out $(OUT)/dist/crsc-node.tar

# What is not tagged sorts before all that is.
DEBVERSION := $(if $(filter v%,$(VERSION)),$(patsubst v%,%,$(VERSION)),0~$(VERSION))

.PHONY: deb
deb: build ## a Debian package in out/dist
	@exec testing/env/install node
	@exec testing/env/install nfpm
	@mkdir -p $(OUT)/dist
	@tools=$$(testing/env/cachedir)/bin; GOARCH=$$(go env GOARCH) VERSION='$(DEBVERSION)' CRIU=$$tools/criu-static \
	$$tools/nfpm package -f deploy/nfpm.yaml -p deb -t $(OUT)/dist/

.PHONY: dist
dist: node-image deb ## image, Debian package and programs with checksums in out/dist
	@cp bin/containerd-shim-crsc-v1 bin/crsc bin/crsc-node $(OUT)/dist/
	@cp "$$(testing/env/cachedir)/bin/criu-static" $(OUT)/dist/criu
	@cd $(OUT)/dist && sha256sum -- $$(ls | grep -v SHA256SUMS) >SHA256SUMS && cat SHA256SUMS

.PHONY: clean
clean: ## take all environments of this clone down, remove what was built
	@if [ -x bin/testing/crsc-env ]; then \
	for i in '' e2e demo soak egress datagrams workloads matrix brecovery bproxy bfreeze bimage bjournal bparity bdatagrams; do bin/testing/crsc-env --instance "$$i" down || exit 1; done; fi
	rm -rf bin out
