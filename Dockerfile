# Odyssey and its simulators, each in a small image of its own:
#   docker build -t odyssey .
#   docker build -t odyssey-simulators --target simulators .
# Needs BuildKit, which is Docker's default today (DOCKER_BUILDKIT=1 before version 23).

FROM rust:1.95-bookworm AS sources
WORKDIR /build
COPY . .

# The registry and everything compiled so far live in cache mounts, apart from the sources: a change compiles what it
# touches, dependencies only when Cargo.lock changes.
FROM sources AS build
# The repository is not among the sources: `make build` says which commit they are at.
ARG ODYSSEY_COMMIT
RUN --mount=type=cache,id=odyssey-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=odyssey-target,target=/build/target,sharing=locked \
    cargo build --release --locked -p odyssey --features aws,redis --bin odyssey && \
    mkdir -p /out/data /debug && \
    objcopy --only-keep-debug target/release/odyssey /debug/odyssey.debug && \
    cd /debug && \
    objcopy --strip-debug --add-gnu-debuglink=odyssey.debug /build/target/release/odyssey /out/odyssey

# The server's debug information, for backtraces with lines and for perf and gdb; they find it in /usr/lib/debug/usr/local/bin:
#   docker build --target debug-info --output . .
FROM scratch AS debug-info
COPY --from=build /debug/odyssey.debug /

FROM sources AS build-simulators
RUN --mount=type=cache,id=odyssey-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=odyssey-target,target=/build/target,sharing=locked \
    cargo build --release --locked -p simulators --bin simulators && \
    mkdir -p /out && \
    objcopy --strip-debug target/release/simulators /out/simulators

# Customers and baristas, for trying the shop.
FROM debian:bookworm-slim AS simulators
COPY --from=build-simulators /out/simulators /usr/local/bin/
USER 10001:10001
ENTRYPOINT ["simulators"]
CMD ["help"]

# The server. Last, so that it is what is built when nothing is said.
FROM debian:bookworm-slim AS odyssey
COPY --from=build /out/odyssey /usr/local/bin/
# Whom to trust when Amazon is called; the slim image has none.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# What must last is kept here; owned by whom the server runs as, and so is a new volume in its place.
COPY --from=build --chown=10001:10001 /out/data /var/lib/odyssey
WORKDIR /var/lib/odyssey
USER 10001:10001
# Inside a container "this machine" is the container. Beyond it the staff's listener needs staff.auth: without it the server
# refuses to start.
ENV ODYSSEY_CUSTOMERS__LISTEN=0.0.0.0:8000 \
    ODYSSEY_STAFF__LISTEN=0.0.0.0:8001
EXPOSE 8000 8001
VOLUME /var/lib/odyssey
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["odyssey", "health"]
# SIGTERM: held customers get their coffee first, for up to shutdown.drain (60 s). Give it longer than that to stop.
STOPSIGNAL SIGTERM
ENTRYPOINT ["odyssey"]
CMD ["serve"]
