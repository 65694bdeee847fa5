# Stands in for the image `prom/prometheus` where no registry is reached: Debian's Prometheus.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends prometheus busybox \
    && ln -s /bin/busybox /usr/bin/wget && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /prometheus
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
