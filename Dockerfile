# docker build -t mtcae-dfer .
# docker build -t mtcae-dfer --build-arg DEVICE=cuda .
#
# runs `make repro`; see docs/docker.md.
ARG DEVICE=cpu

FROM python:3.11-slim-bookworm AS cpu

# PyTorch brings CUDA's libraries along; the driver is lent by the machine.
FROM python:3.11-slim-bookworm AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM ${DEVICE}
RUN apt-get update \
  && apt-get install -y --no-install-recommends git make \
  && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home researcher && mkdir /project && chown researcher /project
USER researcher
# DVC makes a commit of every experiment.
RUN git config --global user.name researcher && git config --global user.email researcher@localhost
WORKDIR /project
# Of another index that pip asks too: PyTorch's own has smaller builds for CPUs.
ARG PIP_EXTRA_INDEX_URL
# Installed before the project is copied, so that an edit of it installs nothing anew.
COPY --chown=researcher Makefile requirements.txt constraints.txt ./
RUN PIP_NO_CACHE_DIR=1 make .venv/.run
COPY --chown=researcher . .
ENV PATH=/project/.venv/bin:$PATH
CMD ["make", "repro"]
