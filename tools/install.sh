#!/usr/bin/env bash
# Install this project into .venv, exactly the versions in constraints.txt, one line per stage.
# Usage: tools/install.sh main|dev      Called by make, which skips it while nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extra=""
if [ "${1:-main}" = dev ]; then extra="[dev]"; fi
log=.venv/install.log

# A 3.11 interpreter that really starts: version managers leave shims on PATH that only print an error.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "Python 3.11 not found: tried ${PYTHON:-python3.11 python3 python}; this machine has" \
        "$(python3 --version 2>&1 || true). Install Python 3.11 with its venv module, or name it: make setup PYTHON=/path/to/python3.11" >&2
    return 1
}

# pip's own output goes to the log; here only a sign of life, and the log's end when it fails.
run_pip() {
    local line count=0
    if ! .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 | tee -a "$log" |
        while IFS= read -r line; do
            case "$line" in
            Collecting*) count=$((count + 1)); if [ $((count % 40)) -eq 0 ]; then echo "      $count packages found"; fi ;;
            Installing\ collected*) echo "      installing" ;;
            esac
        done; then
        echo "Installation failed; the end of $log:" >&2
        grep -v '^WARNING: Location' "$log" | tail -n 15 >&2
        return 1
    fi
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    echo "[1/3] environment .venv ($("$python" --version 2>&1))"
    "$python" -m venv --clear .venv || {
        echo "No environment could be made: install the venv module (Debian: apt install python3-venv) and see that $PWD can be written." >&2
        exit 1
    }
fi
: >"$log"
echo "[2/3] PyTorch (the largest part, some 200 MB)"
run_pip -c constraints.txt torch
echo "[3/3] libraries and this project${extra:+, with what its tests need}"
run_pip -c constraints.txt -e ".$extra"

# `dagster` typed by hand with .venv active writes where `make up` reads; an own DAGSTER_HOME wins.
if ! grep -q DAGSTER_HOME .venv/bin/activate; then
    cat >>.venv/bin/activate <<'ACTIVATE'

# vlm-captioning: commands typed by hand use the Dagster instance that `make up` shows
export DAGSTER_HOME="${DAGSTER_HOME:-$(dirname "$VIRTUAL_ENV")/dagster_home}"
ACTIVATE
fi

# Dagster's databases are made now, by one process: two commands that make them at once leave them beyond repair.
DAGSTER_HOME="${DAGSTER_HOME:-$PWD/dagster_home}" .venv/bin/python - <<'PREPARE'
import os
from pathlib import Path

from vlm_assets.cli.bootstrap import prepare_instance

prepare_instance(Path(os.environ["DAGSTER_HOME"]))
PREPARE
