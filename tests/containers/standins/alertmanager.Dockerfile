# Stands in for the image `prom/alertmanager` where no registry is reached: Debian's Alertmanager.
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends prometheus-alertmanager busybox \
    && ln -s /bin/busybox /usr/bin/wget && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /alertmanager
WORKDIR /alertmanager
VOLUME /alertmanager
ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]
