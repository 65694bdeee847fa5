#!/usr/bin/env bash
# Install Alibi Detect into .venv-alibi, exactly the versions in tools/alibi-constraints.txt. An environment of its own,
# as it wants numpy < 2 and transformers < 5. Called by make, which skips it while nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Alibi Detect into .venv-alibi (about 2 GB, two minutes)"
if ! { .venv/bin/python -m venv --clear .venv-alibi &&
    .venv-alibi/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        -c tools/alibi-constraints.txt alibi-detect torch dagster-pipes; } >"$log" 2>&1; then
    echo "Alibi Detect could not be installed; the end of pip's output:" >&2
    grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
    exit 1
fi
