#!/usr/bin/env bash
# Install DVC into .venv-dvc, exactly the versions in tools/dvc-constraints.txt. An environment of its own, as its
# antlr is not Dagster's. Called by make, which skips it while nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "DVC into .venv-dvc (about 220 MB, half a minute)"
if ! { .venv/bin/python -m venv --clear .venv-dvc &&
    .venv-dvc/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        -c tools/dvc-constraints.txt 'dvc[s3]'; } >"$log" 2>&1; then
    echo "DVC could not be installed; the end of pip's output:" >&2
    grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
    exit 1
fi
