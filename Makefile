# Everything that is done with this source; `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help deps build demo test reference model deploys upgrades differential planted compare bench load-test pgo tls-scan fuzz lint sbom release package image package-test docs
MAKEFLAGS += --no-print-directory

# rustup's folder, for shells that were started before Rust was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install what build and tests need, as far as it is missing
	@.ci/deps test
	@tests/clients/setup

build: ## the release binary, target/release/sentry-edge
	@.ci/deps build
	@cargo build --locked --release

demo: ## the whole sign-on flow on this machine; ARGS="--listen 127.0.0.1:9443" and so on
	@.ci/deps build
	@cargo run --locked -- demo $(ARGS)

# The modules of tests/it that are about requests and responses. Edges in them are started with FAST_PATH=off a second time,
# so that what they expect holds for the full path too.
HTTP_MODULES := access balancer balancing behind_nginx compression cookies cross_origin devices error_pages express flow gate grpc headers health_checks hosts \
	http2 hygiene inputs keepalive maintenance micro_services names private_connections problem_pages protection public_port queries refusals reloads responses \
	return_urls route_fields route_rules routes shares sick_servers static_files streams tickets tokens upstream

test: ## all tests, those about HTTP on both request paths; ARGS="flow" for those with that name, on one
	@.ci/deps test
	@tests/clients/setup
	@cargo test --locked $(ARGS)
	@[ -n "$(ARGS)" ] || FAST_PATH=off cargo test --locked --test it -- $(HTTP_MODULES:%=%::)

reference: ## the pages and the schema that are made of the source: docs/reference, config/edge.schema.json
	@.ci/deps build
	@WRITE_REFERENCE=1 cargo test --locked --test it -- reference::

deploys: ## ten deploys of a two-server pool under load, 50,000 requests, none of them lost; DEPLOYS=, REQUESTS=
	@.ci/deps build
	@DEPLOYS=$(or $(DEPLOYS),10) REQUESTS=$(or $(REQUESTS),50000) cargo test --locked --test it -- deploys:: --nocapture

upgrades: ## ten upgrades and 100 reloads under load, 100,000 requests, none of them lost, and ten restarts under socket activation; UPGRADES=, RELOADS=, REQUESTS=, RESTARTS=
	@.ci/deps build
	@UPGRADES=$(or $(UPGRADES),10) RELOADS=$(or $(RELOADS),100) REQUESTS=$(or $(REQUESTS),100000) cargo test --locked --test it -- upgrades::an_upgrade --nocapture
	@RESTARTS=$(or $(RESTARTS),10) cargo test --locked --test it -- activation::a_restart --nocapture

# It shares the machine with whatever else runs there.
model: ## the model of the sign-on, tests/model: all states within its bounds; some minutes. ARGS="browser", "stores" or "rounds"
	@.ci/deps test
	@nice -n 19 python3 tests/model $(ARGS)

differential: ## both request paths held against each other; CASES= (10000; it prints how many are 200 of each combination), SEED=
	@.ci/deps test
	@DIFFERENTIAL_CASES=$(or $(CASES),10000) DIFFERENTIAL_SEED=$(or $(SEED),$$(date +%s)000000) cargo test --locked --test it -- differential:: --nocapture

planted: ## whether that finds each of the faults of tests/planted, one for each family of rules; some twenty minutes. ARGS="retries"
	@.ci/deps test
	@tests/planted/run $(ARGS)

compare: ## asks nginx the bad inputs that the tests ask us, and writes tests/it/inputs/NGINX.md
	@.ci/deps test
	@.ci/deps compare
	@COMPARE=1 cargo test --locked --test it inputs::nginx

bench: ## what the parts of the hot path cost; ARGS="cookie" for those with that name, PROFILE=fast builds sooner
	@.ci/deps build
	@.ci/deps bench
	@cargo bench --locked --profile $(or $(PROFILE),release) --bench hot_path --bench instructions -- $(ARGS)
	@cargo bench --locked --profile $(or $(PROFILE),release) --bench sessions -- $(ARGS)

load-test: ## side by side with other proxies; SCENARIO="threads logs" or all, ROUNDS=, SECONDS=, ONLY=, PROFILE=
	@.ci/deps build
	@load-tests/setup
	@python3 load-tests/run.py $(SCENARIO)

pgo: ## a release binary that was built with a profile of its own work, target/pgo/sentry-edge; some minutes longer
	@.ci/deps build
	@load-tests/pgo

tls-scan: ## sslyze and testssl.sh against a running edge, held against Mozilla's configurations; two minutes
	@.ci/deps build
	@.ci/deps tls-scan
	@cargo test --locked --no-run --quiet --test it # the binary that the tests have made already
	@python3 .ci/tls-scan
fuzz: ## every fuzz target for SECONDS= (60); TARGETS="path host" for those
	@.ci/deps fuzz
	@fuzz/run $(or $(SECONDS),60) $(TARGETS)

# The fuzz targets are only looked at, so nothing is linked, and any file will do for libFuzzer, which takes a C++ compiler.
lint: ## format, clippy (of the fuzz targets too), dependencies by deny.toml and the documentation's links
	@.ci/deps build
	@.ci/deps lint
	@.ci/deny
	@cargo fmt --check
	@cargo clippy --locked --all-targets -- -D warnings
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@CUSTOM_LIBFUZZER_PATH=$(CURDIR)/fuzz/Cargo.toml cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir target -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet

sbom: ## the bill of materials in CycloneDX, target/released/sentry-edge.cdx.json
	@.ci/deps lint
	@.ci/sbom target/released/sentry-edge.cdx.json

release: build sbom ## what is released: binary, manual pages, completion, bill of materials and checksums, in target/released
	@cp target/release/sentry-edge systemd/sentry-edge.service systemd/sentry-edge.socket config/edge.yaml config/edge.schema.json target/released/
	@target/release/sentry-edge man target/released
	@for shell in bash zsh fish; do target/release/sentry-edge completion $$shell > target/released/sentry-edge.$$shell; done
	@.ci/sbom --sums target/released

# A package has the binary of `make pgo`. PROFILE=release is faster built: without a profile of its own work.
package: ## the Debian package and one with its debug symbols, target/debian; PROFILE= (pgo)
	@.ci/deps package
	@[ "$(or $(PROFILE),pgo)" != pgo ] || load-tests/pgo
	@[ "$(or $(PROFILE),pgo)" = pgo ] || cargo build --locked --profile $(PROFILE) --bin sentry-edge
	@packaging/build-deb $(or $(PROFILE),pgo)

image: ## the same binary as a container image, an OCI archive in target/image; PROFILE= (pgo)
	@.ci/deps package
	@[ "$(or $(PROFILE),pgo)" != pgo ] || load-tests/pgo
	@[ "$(or $(PROFILE),pgo)" = pgo ] || cargo build --locked --profile $(PROFILE) --bin sentry-edge
	@packaging/build-image $(or $(PROFILE),pgo)

package-test: ## tries both: installs, upgrades while it serves, removes in a new Debian (as root), starts the image; some minutes
	@.ci/deps package
	@packaging/test deb target/debian/sentry-edge_*.deb
	@packaging/test image target/image/sentry-edge-*.tar

docs: ## the book, target/book/index.html, and the documentation of the source, target/doc/sentry_edge/index.html; checks their links
	@.ci/deps build
	@.ci/deps docs
	@.ci/book
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
