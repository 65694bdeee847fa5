# Stands in for the image `postgres` where no registry is reached: Debian's server behind the same names and variables.
FROM python:3.11-slim-bookworm
RUN groupadd -g 999 postgres && useradd -u 999 -g 999 -d /var/lib/postgresql postgres \
    && apt-get update && apt-get install -y --no-install-recommends postgresql-15 \
    && rm -rf /var/lib/apt/lists/* /var/lib/postgresql \
    && install -d -o 999 -g 999 /var/lib/postgresql/data /var/run/postgresql
COPY postgres-entrypoint.sh /
ENV PATH=/usr/lib/postgresql/15/bin:$PATH PGDATA=/var/lib/postgresql/data
USER 999
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["/postgres-entrypoint.sh"]
