# The captioner: vlm_serving on a Ray of its own, no Dagster. Build from the project's root:
#   docker build -f deploy/docker/serving.Dockerfile -t vlm-serving:0.1.0 .
# PyTorch is the CPU build; `--build-arg TORCH_INDEX=https://pypi.org/simple` takes the CUDA build of the same version.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PATH=/opt/venv/bin:$PATH
RUN python -m venv /opt/venv
WORKDIR /build
COPY constraints.txt deploy/docker/serving.txt ./
# PyTorch by itself: an index given for it must not be asked for anything else. Empty: pip's own index.
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --no-deps -c constraints.txt torch \
    && pip install -c constraints.txt -r serving.txt
# Without vlm_assets beside it, the package is vlm_serving alone.
COPY pyproject.toml README.md LICENSE ./
COPY vlm_serving vlm_serving
RUN pip install --no-deps .
COPY deploy/docker/sbom.py deploy/docker/probe.py ./
RUN python sbom.py /opt/venv/sbom.cdx.json && cp probe.py /opt/venv/probe.py

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="vlm-serving" \
      org.opencontainers.image.description="Captions pictures over HTTP: a model bundle on Ray Serve" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
RUN install -d -o 10001 -g 10001 /var/lib/vlm/bundles /var/lib/vlm/cache /var/lib/vlm/request_log
# Everything is written below /tmp and /var/lib/vlm: the root may be read-only. A number without a name in /etc/passwd
# needs USER and HOME.
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=vlm PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true RAY_USAGE_STATS_ENABLED=0 \
    VLM_BUNDLE_CACHE=/var/lib/vlm/bundles VLM_REQUEST_LOG=/var/lib/vlm/request_log
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
# Serve's proxy answers here with or without a model; whether there is one: /readyz.
# 404: up, and no model yet
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "/opt/venv/probe.py", "http://127.0.0.1:8000/healthz", "404"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "vlm_serving"]
CMD ["serve", "--host", "0.0.0.0"]
