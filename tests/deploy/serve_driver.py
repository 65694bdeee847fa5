"""Run by test_serve_config.py in namespaces of its own: `serve_driver.py CONFIG BUNDLE PROBES FOLDER`.

Starts a Ray as a pod of the chart does (`ray start`, token auth), puts the chart's serveConfigV2 on it by `serve
deploy` while no model has been released, then deploys BUNDLE as serving_app does, asks for one caption, and asks every
probe as the kubelet would: without a token.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.tiny import picture_bytes
from vlm_serving.bundle import open_bundle
from vlm_serving.deploying import deploy

CAPTIONER, DASHBOARD = "http://127.0.0.1:8000", "http://127.0.0.1:8265"
START_S = 240


def ray(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *arguments], check=True)


def until_running(client: httpx.Client, token: dict[str, str]) -> None:
    """Wait until Serve says so of the application."""
    deadline_s, told = time.monotonic() + START_S, ""
    while time.monotonic() < deadline_s:
        state = client.get(f"{DASHBOARD}/api/serve/applications/", headers=token).json()
        told = state["applications"].get("captioner", {})
        if told.get("status") == "RUNNING":
            return
        time.sleep(0.5)
    raise TimeoutError(f"not running after {START_S} s: {told}")


def main(config: Path, bundle: str, probes: list[str], folder: Path) -> None:
    ray(
        *("start", "--head", "--port=6379", "--dashboard-host=0.0.0.0", "--num-cpus=4", "--num-gpus=0"),
        *("--metrics-export-port=8080", f"--temp-dir={folder / 'ray'}", "--disable-usage-stats"),
        "--object-store-memory=100000000",
    )
    serve = [sys.executable, "-m", "ray.serve.scripts", "deploy", str(config), "-a", DASHBOARD]
    subprocess.run(serve, check=True)
    client = httpx.Client(timeout=60, trust_env=False)
    token = {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}
    until_running(client, token)
    before = client.get(f"{CAPTIONER}/readyz").status_code
    deploy(DASHBOARD, bundle, open_bundle(bundle).version, http_url=CAPTIONER)
    picture = {"files": picture_bytes(1)}
    state = client.get(f"{DASHBOARD}/api/serve/applications/", headers=token).json()
    seen = {
        "ready_before": before,
        "without_key": client.post(f"{CAPTIONER}/v1/captions", files=picture).status_code,
        "answer": client.post(
            f"{CAPTIONER}/v1/captions", files=picture, headers={"x-api-key": os.environ["CALLER_KEY"]}
        ).json(),
        "probes": {probe: client.get(f"http://127.0.0.1:{probe}").status_code for probe in probes},
        "without_token": client.get(f"{DASHBOARD}/api/serve/applications/").status_code,
        "status": state["applications"]["captioner"]["status"],
        "deployments": sorted(state["applications"]["captioner"]["deployments"]),
        "args": state["applications"]["captioner"]["deployed_app_config"]["args"],
        "http_options": state["http_options"],
        "metrics": client.get("http://127.0.0.1:8080/metrics").status_code,
        "haproxy": client.get("http://127.0.0.1:8404/stats").status_code if os.environ.get("HA_PROXY") else 0,
    }
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]))
