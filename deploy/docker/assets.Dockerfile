# Dagster's three processes and MLflow's server: vlm_assets with everything it trains and measures with. Build from the
# project's root: docker build -f deploy/docker/assets.Dockerfile -t vlm-assets:0.1.0 .
# PyTorch is the CPU build; `--build-arg TORCH_INDEX=https://pypi.org/simple` takes the CUDA build of the same version.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /build
# The libraries are a layer of their own: a change of our code does not install them again. pyproject.toml names them,
# and an empty package is enough to read it.
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --no-deps -c constraints.txt torch \
    && pip install -c constraints.txt ".[postgres,kubernetes]"
COPY vlm_serving vlm_serving
COPY vlm_assets vlm_assets
RUN pip install --no-deps --force-reinstall .
COPY deploy/docker/sbom.py deploy/docker/probe.py ./
RUN python sbom.py /opt/venv/sbom.cdx.json && cp probe.py /opt/venv/probe.py

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vlm-assets" \
      org.opencontainers.image.description="Trains, measures, gates and watches the captioner: Dagster and MLflow" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
COPY deploy/docker/dagster.yaml deploy/docker/workspace.yaml /var/lib/vlm/dagster_home/
COPY dagster_home/presets /var/lib/vlm/dagster_home/presets
RUN install -d -o 10001 -g 10001 /var/lib/vlm/dagster_home/storage /var/lib/vlm/dagster_home/logs \
        /var/lib/vlm/cache /var/lib/vlm/request_log
# Everything is written below /tmp and in the four directories above: the root may be read-only. A number without a name
# in /etc/passwd needs USER and HOME.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=vlm PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0 \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false DAGSTER_HOME=/var/lib/vlm/dagster_home \
    VLM_CACHE=/var/lib/vlm/cache VLM_REQUEST_LOG=/var/lib/vlm/request_log
WORKDIR /var/lib/vlm/dagster_home
USER 10001:10001
EXPOSE 4000
# Of the code location, which is what runs if nothing else is asked for; the other processes have their own in compose.
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 \
    CMD ["dagster", "api", "grpc-health-check", "-p", "4000"]
STOPSIGNAL SIGTERM
CMD ["dagster", "api", "grpc", "-m", "vlm_assets.definitions", "-h", "0.0.0.0", "-p", "4000"]
