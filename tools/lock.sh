#!/usr/bin/env bash
# Write constraints.txt from .venv. Torch loses its build tag: the same line then finds the CPU and the CUDA build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

locked=$(mktemp)
trap 'rm -f "$locked"' EXIT
{
    echo "# Exact versions of everything that \`make setup\` and \`make setup-dev\` install; written by \`make lock\`."
    echo "# torch carries no build tag: the same line finds the CPU build and the CUDA build of this version."
    .venv/bin/python -m pip freeze --exclude-editable 2>/dev/null | grep -v ' @ ' | sed -E 's/^(torch==[^+]+)\+.*/\1/'
} >"$locked"
cp "$locked" constraints.txt
