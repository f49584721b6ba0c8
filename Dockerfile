# docker build -t mtcae-dfer .
# docker build -t mtcae-dfer --build-arg DEVICE=cuda .
#
# runs `make repro`; see docs/docker.md.
ARG DEVICE=cpu

FROM python:3.12-slim-bookworm AS cpu
RUN apt-get update \
  && apt-get install -y --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:13.0.2-base-ubuntu24.04 AS cuda
RUN apt-get update \
  && apt-get install -y --no-install-recommends git make python3 python3-venv \
  && rm -rf /var/lib/apt/lists/*

FROM ${DEVICE}
RUN useradd --create-home researcher && mkdir /project && chown researcher /project
USER researcher
WORKDIR /project
# Of another index that pip asks too: PyTorch's own has smaller builds for CPUs.
ARG PIP_EXTRA_INDEX_URL
# Installed before the project is copied, so that an edit of it installs nothing anew.
COPY --chown=researcher Makefile requirements.txt constraints.txt ./
RUN PIP_NO_CACHE_DIR=1 make .venv/.run
COPY --chown=researcher . .
ENV PATH=/project/.venv/bin:$PATH
CMD ["make", "repro"]
