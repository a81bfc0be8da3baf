# syntax=docker/dockerfile:1
# The image of tamiz: one binary, libtorch for the CPU and the model, run by a user without rights.
#
#   docker build -t tamiz .                              optimised as far as it goes; about an hour on two cores
#   docker build -t tamiz --build-arg PROFILE=dev .      what `make demo` builds; half of that
#   docker run --rm tamiz demo
FROM rust:1.95-bookworm AS build
ARG PROFILE=release
ENV TAMIZ_CACHE=/cache
WORKDIR /src
# The Kafka client speaks TLS with the system's OpenSSL.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
# libtorch changes seldom: a layer of its own, before the sources.
COPY scripts scripts
RUN TAMIZ_LIBTORCH=cpu scripts/setup \
 && mkdir -p /out/lib/tamiz/torch /out/share/tamiz/weights \
 && cp -a /cache/libtorch/current/torch/lib /out/lib/tamiz/torch/lib \
 && cp -a /cache/libtorch/current/nvidia /out/lib/tamiz/nvidia
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/cache/target \
    cargo build --locked --workspace --bin tamiz --profile "$PROFILE" \
 && install -D -t /out/bin "/cache/target/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")/tamiz" \
 && cp -a model/weights/. /out/share/tamiz/weights/

FROM debian:bookworm-slim
# OpenSSL for brokers, and roots for TLS to them and to object stores.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --create-home --home-dir /var/lib/tamiz tamiz
COPY --from=build /out/ /usr/local/
# Fails the build, rather than the first start, when a library is missing.
RUN tamiz --version
USER tamiz
WORKDIR /var/lib/tamiz
STOPSIGNAL SIGTERM
ENTRYPOINT ["tamiz"]
CMD ["run"]
