# One image for every process of the house, and a target beside it:
#
#   docker build -t enginehouse .                           gateway, controller, up, builds without a GPU
#   docker build -t enginehouse-triton --target triton .    the same and a Triton Inference Server for CPU engines
#
# A builder runs where TensorRT-LLM's programs are: deploy/compose/gpu/Dockerfile.
# The command says what runs: docker run enginehouse gateway. Needs neither root nor a writable root file system;
# /tmp and, where named, the mounted folders are all that is written to. docs/containers.md has the rest.

ARG BASE=debian:12.12-slim

# What all stages stand on. Python is Debian's own, whose shared libpython Triton's backend loads.
FROM ${BASE} AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libpython3.11 python3 \
    && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
    && groupadd --gid 10001 house \
    && useradd --uid 10001 --gid house --home-dir /home/house --create-home --shell /usr/sbin/nologin house \
    && install -d -o house -g house /engines /var/lib/enginehouse/batch-jobs /var/lib/enginehouse/builds \
       /run/enginehouse/redis /run/enginehouse/registry /run/enginehouse/keys /run/enginehouse/grafana
ENV PATH=/opt/enginehouse/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/enginehouse

# The locked packages, and the command that points at the folder: made anew only when they change.
FROM python AS packages
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
COPY requirements/image.lock requirements/image.lock
RUN python3 -m venv .venv \
    && .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
       -r requirements/image.lock \
    && .venv/bin/python -m pip uninstall --yes --quiet setuptools

# Triton's own environment: its wheel, and a NumPy that its Python backend works with.
FROM packages AS triton-environment
COPY requirements/triton.lock requirements/triton.lock
COPY enginehouse/__init__.py enginehouse/errors.py enginehouse/
COPY enginehouse/local/__init__.py enginehouse/local/triton_environment.py enginehouse/local/install_triton.py \
     enginehouse/local/
RUN ENGINEHOUSE_TRITON_ENV=/opt/enginehouse/.triton .venv/bin/python -m enginehouse.local.install_triton \
    && .triton/bin/python3 -m compileall -q -j 0 .triton/lib

FROM packages AS environment
COPY pyproject.toml README.md LICENSE ./
COPY enginehouse/__init__.py enginehouse/
RUN .venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps -e . \
    && .venv/bin/python -m pip uninstall --yes --quiet pip

# Compiled here, since nothing can be written where it runs.
FROM python AS source
COPY . .
RUN PYTHONDONTWRITEBYTECODE= python3 -m compileall -q -j 0 .

FROM python AS base
COPY --from=environment /opt/enginehouse/.venv .venv

FROM base AS triton
COPY --from=triton-environment /opt/enginehouse/.triton .triton
COPY --from=source /opt/enginehouse .
USER 10001:10001
STOPSIGNAL SIGTERM
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=4s --start-period=180s --retries=4 \
    CMD ["python", "-S", "-m", "enginehouse.containers.probe", "http://127.0.0.1:8000/v2/health/ready"]
LABEL org.opencontainers.image.title="Enginehouse Triton" \
      org.opencontainers.image.description="Triton Inference Server with CPU engines that speak TensorRT-LLM's schemas" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["enginehouse"]
CMD ["triton"]

FROM base AS enginehouse
COPY --from=source /opt/enginehouse .
USER 10001:10001
STOPSIGNAL SIGTERM
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=4s --start-period=180s --retries=3 \
    CMD ["python", "-S", "-m", "enginehouse.containers.probe"]
LABEL org.opencontainers.image.title="Enginehouse" \
      org.opencontainers.image.description="One OpenAI-compatible endpoint in front of a fleet of Triton-hosted engines" \
      org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["enginehouse"]
CMD ["gateway", "--host", "0.0.0.0"]
