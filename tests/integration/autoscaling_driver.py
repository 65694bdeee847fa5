"""Run by test_autoscaling.py in network and process namespaces of its own: `autoscaling_driver.py BUNDLE FOLDER`.

Starts a Ray head with the real autoscaler, whose GPU nodes are raylets on this machine, serves a model that wants a GPU
and has no replica while nobody asks, and writes what happened when to FOLDER/events.json.
"""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import ray
from ray import serve

from tests.tiny import picture_bytes
from vlm_serving.app import build_app
from vlm_serving.config import ServingConfig

EMPTY: dict[str, Any] = {
    name: []
    for name in (
        *("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands"),
        *("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files"),
        *("rsync_exclude", "rsync_filter"),
    )
}
CLUSTER = {
    "cluster_name": "fake",
    "max_workers": 2,
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.1,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,  # all nodes have this machine's
        "disable_node_updaters": True,  # there is nothing to set up over SSH
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **EMPTY,
}
URL = "http://127.0.0.1:8000"
WAKE_S, SLEEP_S = 120, 120


def gpu_nodes() -> int:
    return sum(node["Alive"] and "GPU" in node["Resources"] for node in ray.nodes())


def wait_for(count: int, limit_s: float) -> float:
    """Seconds until there were `count` GPU nodes."""
    started_s = time.monotonic()
    while gpu_nodes() != count:
        if time.monotonic() - started_s > limit_s:
            raise TimeoutError(f"{gpu_nodes()} GPU nodes after {limit_s} s, not {count}")
        time.sleep(0.5)
    return time.monotonic() - started_s


def main(bundle: str, folder: Path) -> None:
    (folder / "cluster.json").write_text(json.dumps(CLUSTER))
    command = [
        *("ray", "start", "--head", "--port=6379", "--num-cpus=2", "--num-gpus=0", "--disable-usage-stats"),
        *(f"--autoscaling-config={folder / 'cluster.json'}", f"--temp-dir={folder / 'ray'}"),
        *("--include-dashboard=false", "--object-store-memory=100000000"),
    ]
    environment = {**os.environ, "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", *command[1:]], check=True, env=environment)
    ray.init("127.0.0.1:6379")
    config = ServingConfig(
        bundle=bundle, num_gpus=1, min_replicas=0, max_replicas=1, downscale_delay_s=2, upscale_delay_s=0,
        deadline_s=WAKE_S, golden_check_period_s=1,
    )  # fmt: skip
    serve.run(build_app(config), name="captioner")
    client = httpx.Client(base_url=URL, timeout=WAKE_S + 10, trust_env=False)
    events: dict[str, Any] = {"gpu_nodes_at_first": gpu_nodes(), "alive_at_first": client.get("/healthz").status_code}
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(client.post("/v1/captions", files={"files": picture_bytes(1)}))
    )
    asking.start()
    events["awake_s"] = wait_for(1, WAKE_S)
    asking.join()
    events["status"], events["body"] = answers[0].status_code, answers[0].json()
    started_s = time.monotonic()
    while gpu_nodes():  # probes and health checks go on meanwhile: they must not keep the node
        probe = client.get("/readyz")
        if time.monotonic() - started_s > SLEEP_S:
            raise TimeoutError("the GPU node was not given back")
        time.sleep(1)
    events |= {
        "asleep_s": time.monotonic() - started_s,
        "ready_asleep": probe.json(),
        "models": client.get("/v1/models").json(),
    }
    time.sleep(5)
    events["gpu_nodes_at_last"] = gpu_nodes()
    (folder / "events.json").write_text(json.dumps(events))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
