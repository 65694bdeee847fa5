#!/usr/bin/env bash
# The state of the box of compose.yaml in a folder, and back:
#   deploy/box.sh backup DIR     deploy/box.sh restore DIR
# In it: Dagster's and MLflow's databases, everything on S3 (store, ledger, bundles, artifacts), the request log with its
# corrections, and Dagster's own files. Not in it: deploy/.env and deploy/secrets, which belong where secrets are kept,
# and what is fetched again (caches). COMPOSE: the command, by default `docker compose`; COMPOSE_PROJECT_NAME as ever.
set -euo pipefail

usage() { sed -n '2,3p' "$0" | cut -c3- >&2; exit 2; }
fail() { echo "box.sh: $*" >&2; exit 1; }
say() { echo "box.sh: $*"; }

[ $# -eq 2 ] || usage
folder=$(realpath -m "$2")
cd "$(dirname "${BASH_SOURCE[0]}")"
read -ra compose <<<"${COMPOSE:-docker compose}"
compose+=(-f compose.yaml --profile core)
databases=(dagster mlflow)
# archive, service that mounts it, where
volumes=("s3 s3 /data" "request_log code-location /var/lib/vlm/request_log"
    "dagster code-location /var/lib/vlm/dagster_home/storage")

container() { "${compose[@]}" ps -a -q "$1" | head -n 1; }

beside() { # service, command, its arguments: run as root with the volumes of a service
    local service=$1 command=$2 image
    shift 2
    image=$(docker inspect -f '{{.Image}}' "$(container code-location)")
    docker run --rm -i --network none --user 0 --volumes-from "$(container "$service")" --entrypoint "$command" "$image" "$@"
}

backup() {
    [ ! -e "$folder" ] || fail "$folder is there already. Name a new folder, or move that one away."
    [ -n "$(container postgres)" ] || fail "the box is not running: there is no container of postgres. Start it first."
    umask 077
    mkdir -p "$folder.part"
    # databases first: what they name is on S3 before they name it
    for name in "${databases[@]}"; do
        "${compose[@]}" exec -T postgres pg_dump -U postgres --format=custom "$name" >"$folder.part/$name.pgdump"
        say "database $name: $(du -h "$folder.part/$name.pgdump" | cut -f1)"
    done
    "${compose[@]}" stop s3 >/dev/null 2>&1 # its files change while it runs; who writes now tries again
    trap '"${compose[@]}" start s3 >/dev/null 2>&1' EXIT
    for line in "${volumes[@]}"; do
        read -r name service path <<<"$line"
        beside "$service" tar -C "$path" -czf - . >"$folder.part/$name.tgz"
        say "$name: $(du -h "$folder.part/$name.tgz" | cut -f1)"
    done
    (cd "$folder.part" && sha256sum -- *.pgdump *.tgz >SHA256SUMS)
    mv "$folder.part" "$folder"
    say "done: $folder. deploy/.env and deploy/secrets are not in it."
}

restore() {
    [ -f "$folder/SHA256SUMS" ] || fail "$folder holds no backup: there is no SHA256SUMS in it."
    (cd "$folder" && sha256sum --quiet --check SHA256SUMS) || fail "$folder is damaged. Nothing was restored."
    "${compose[@]}" up --no-start --no-deps postgres s3 code-location # alone: compose 1 waits for what it does not start
    for line in "${volumes[@]}" "- postgres /var/lib/postgresql/data"; do
        read -r name service path <<<"$line"
        found=$(beside "$service" find "$path" -type f -print -quit) # alone: a failure of it must not pass for "nothing"
        [ -z "$found" ] || fail "the box has a state already ($service: $found). Restore goes into an empty one, and" \
            "replaces nothing: take a backup of this one, then \`docker compose down -v\` deletes it."
    done
    for line in "${volumes[@]}"; do
        read -r name service path <<<"$line"
        beside "$service" tar -C "$path" -xzf - <"$folder/$name.tgz"
        say "$name: back"
    done
    "${compose[@]}" up -d postgres
    for _ in $(seq 60); do "${compose[@]}" exec -T postgres pg_isready -q -h 127.0.0.1 -U postgres && break; sleep 2; done
    for name in "${databases[@]}"; do
        "${compose[@]}" exec -T postgres pg_restore -U postgres --clean --if-exists --exit-on-error --dbname="$name" <"$folder/$name.pgdump"
        say "database $name: back"
    done
    "${compose[@]}" up -d
    say "done: the box starts."
}

case $1 in
backup) backup ;;
restore) restore ;;
*) usage ;;
esac
