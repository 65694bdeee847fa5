#!/usr/bin/env bash
# Install Airflow into .venv-airflow, exactly the versions in deploy/airflow/constraints.txt. An environment of its own:
# its libraries are not Dagster's. Called by make, which skips it while nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "Airflow into .venv-airflow (about 290 MB, a minute)"
if ! { .venv/bin/python -m venv --clear .venv-airflow &&
    .venv-airflow/bin/python -m pip install --disable-pip-version-check --progress-bar off \
        -c deploy/airflow/constraints.txt apache-airflow; } >"$log" 2>&1; then
    echo "Airflow could not be installed; the end of pip's output:" >&2
    grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
    exit 1
fi
