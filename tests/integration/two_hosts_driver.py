"""Run by test_two_hosts.py inside `ISOLATED`: `python -m tests.integration.two_hosts_driver FOLDER`.

Preparation, training and serving on a Ray of two hosts; then host b's cable is pulled and put back. What was seen is
in FOLDER/events.json. The store is a local path that both hosts see.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.integration.training.small_inputs import SETTINGS, as_dict
from tests.tiny import picture_bytes, tiny_bundle
from tests.two_hosts import RAY_PORT, Host, ended, make_hosts, until
from tests.unit.vlm_assets.data.pictures import png
from tests.unit.vlm_assets.data.shard_inputs import write_inputs
from tests.unit.vlm_assets.training.inputs import tiny_inputs
from vlm_assets.training.checkpoints import COMPLETE

ADDRESS = f"10.77.0.1:{RAY_PORT}"
URL = "http://10.77.0.1:8000"
TRAINING = {**SETTINGS, "batch_size": 4, "workers": 2, "steps": 200}
PICTURES = 90
# a lost host is noticed within seconds, not after Ray's own minute
QUICK_TO_NOTICE = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "6",
}
WORK_S, NOTICE_S = 400, 120


def main(folder: Path) -> None:
    """Outside of both hosts: they are made, and this module's `on_host_a` runs on the first."""
    os.environ.update(QUICK_TO_NOTICE, GLOO_SOCKET_IFNAME="eth0")
    a, _ = make_hosts(folder)
    head = a.ray("--head", f"--port={RAY_PORT}", "--include-dashboard=false", cpus=1)
    done = subprocess.run(a.command(sys.executable, "-m", __spec__.name, str(folder), "a"), check=False)
    ended([head])
    sys.exit(done.returncode)


def on_host_a(folder: Path) -> None:
    """The whole story; this process is the client, the driver of the preparation and who pulls the cable."""
    import ray

    a, b = Host("a", folder), Host("b", folder)
    until("Ray's head", lambda: "Ray runtime started" in (folder / "ray-a.log").read_text(), WORK_S)
    worker = b.ray(f"--address={ADDRESS}", cpus=1)
    ray.init(ADDRESS, log_to_driver=False)
    until("the second node", lambda: len(_living()) == 2, WORK_S)
    events: dict[str, Any] = {"nodes": _living()}
    events["shards"] = prepare(folder)
    bundle = tiny_bundle(folder / "bundle")
    serve_on_both(bundle)
    events["replicas"] = _replicas(a, b)
    training = start_training(folder)
    load = Load(a)
    try:
        scratch = folder / "training" / "store" / ".vlm" / "scratch"
        until("two training workers", lambda: len(_where("RayTrainWorker", a, b)) == 2, WORK_S)
        events["trainers"] = _where("RayTrainWorker", a, b)
        until("a checkpoint", lambda: any(scratch.glob(f"*/checkpoint-*/{COMPLETE}")), WORK_S)
        load.phase = "cut"
        b.plug("down")
        events["noticed_s"] = until("the loss of host b", lambda: len(_living()) == 1, NOTICE_S)
        until("Serve without host b", lambda: load.answered("cut") > 20 and _quiet(load), WORK_S)
        load.phase = "back"
        b.plug("up")
        events["joined_s"] = until("host b again", lambda: len(_living()) == 2, WORK_S)
        events["nodes_after"] = _living()
        until("the training's workers again", lambda: len(_where("RayTrainWorker", a, b)) == 2, WORK_S)
        events["trainers_after"] = _where("RayTrainWorker", a, b)
        until("replicas on host b again", lambda: _replicas(a, b) == events["replicas"], WORK_S)
        events["replicas_after"] = _replicas(a, b)
        events["training_status"] = training.wait(WORK_S)
    finally:
        load.stop()
        ended([training, worker])
    (made,) = (folder / "training" / "store" / "finetuned_model").iterdir()
    events["summary"] = json.loads((made / "training.json").read_text())
    events["requests"] = load.told()
    (folder / "events.json").write_text(json.dumps(events))


def prepare(folder: Path) -> dict[str, Any]:
    """Shards by Ray Data, and the same on this host alone; on which nodes they were made."""
    import ray

    from vlm_assets.data.shards import ShardSettings, write_shards

    bundle = tiny_bundle(folder / "base")
    raw, splits = write_inputs(folder / "data", [png(seed) for seed in range(PICTURES)], [("a red square",)] * PICTURES)
    made: list[dict[str, bytes]] = []
    for name, address in (("alone", ""), ("shards", ADDRESS)):
        (path := folder / name).mkdir()
        settings = ShardSettings(shard_bytes=8_000, workers=0 if address else 1, ray_address=address)
        write_shards(splits, raw, bundle, path, print, settings)
        made.append({file.name: file.read_bytes() for file in path.iterdir()})
    until("the tasks' events", lambda: _made_on(ray.timeline()), 30)
    return {"equal": made[0] == made[1], "files": len(made[1]), "by_node": _made_on(ray.timeline())}


def _made_on(timeline: Any) -> dict[str, int]:
    """Tasks of the shards by the address of their node."""
    spans = [one for one in timeline or [] if one.get("cat", "").startswith("task::") and "_Maker" in one["cat"]]
    return dict(Counter(str(one["pid"]).removeprefix("Node ") for one in spans))


def serve_on_both(bundle: Path) -> None:
    """Two replicas of the models and two of the ingress, one of each on either host."""
    from ray import serve

    from vlm_serving.app import build_app
    from vlm_serving.config import ServingConfig

    replicas = {name: 2 for name in ("min_replicas", "max_replicas", "ingress_min_replicas", "ingress_max_replicas")}
    nothing_reserved = {"num_cpus": 0, "ingress_num_cpus": 0}  # the cores are the training's, one on each host
    config = ServingConfig.model_validate(
        {"bundle": str(bundle), "max_replicas_per_node": 1, "cached_answers": 0, **replicas, **nothing_reserved}
    )
    serve.start(proxy_location="EveryNode", http_options={"host": "0.0.0.0", "port": 8000})
    serve.run(build_app(config), name="captioner")


def start_training(folder: Path) -> "subprocess.Popen[bytes]":
    """The asset `finetuned_model`, by two workers of the standing cluster."""
    (home := folder / "training").mkdir()
    inputs = tiny_inputs(folder / "inputs")
    command = [sys.executable, "-W", "ignore", "-m", "tests.integration.training.asset_run", str(home)]
    return subprocess.Popen(
        [*command, json.dumps(as_dict(inputs)), json.dumps(TRAINING)], env={**os.environ, "VLM_RAY_ADDRESS": ADDRESS}
    )


class Load:
    """A caller on host a who asks for captions all the time; what came of each request, by phase."""

    def __init__(self, host: Host) -> None:
        self.phase = "before"
        self.answers: list[tuple[str, int, float, float]] = []  # phase, status (0: none), seconds it took, when
        self._going = True
        self._threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in (0, 1_000_000)]
        for thread in self._threads:
            thread.start()

    def _ask(self, seed: int) -> None:
        with httpx.Client(base_url=URL, timeout=90, trust_env=False) as client:
            while self._going:
                seed += 1
                phase, started_s, status = self.phase, time.monotonic(), 0
                with suppress(httpx.HTTPError):
                    status = client.post("/v1/captions", files={"files": picture_bytes(seed)}).status_code
                now_s = time.monotonic()
                self.answers.append((phase, status, now_s - started_s, now_s))
                time.sleep(0.2)

    def answered(self, phase: str) -> int:
        """Requests of a phase that were answered."""
        return sum(1 for asked, status, _, _ in self.answers if asked == phase and status == 200)

    def stop(self) -> None:
        """Ask no more."""
        self._going = False
        for thread in self._threads:
            thread.join()

    def told(self) -> dict[str, dict[str, Any]]:
        """By phase: requests, those that failed by status, and the longest that one took."""
        result: dict[str, dict[str, Any]] = {}
        for phase in ("before", "cut", "back"):
            mine = [one for one in self.answers if one[0] == phase]
            failed = Counter(str(one[1]) for one in mine if one[1] != 200)
            longest_s = max((one[2] for one in mine), default=0.0)
            result[phase] = {"asked": len(mine), "failed": dict(failed), "longest_s": round(longest_s, 1)}
        return result


def _quiet(load: Load) -> bool:
    """Whether the last ten requests were answered, each within two seconds."""
    last = load.answers[-10:]
    return all(status == 200 and took_s < 2 for _, status, took_s, _ in last)


def _living() -> dict[str, str]:
    """Node ids by address, of the nodes that Ray takes for alive."""
    import ray

    return {node["NodeManagerAddress"]: node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _where(kind: str, *hosts: Host) -> list[str]:
    """The address of the host of each Ray process whose title has `kind`."""
    found: list[str] = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):
            if kind in " ".join(process.cmdline()[:1]):
                found += [host.address for host in hosts if host.runs(process)]
    return sorted(found)


def _replicas(*hosts: Host) -> dict[str, list[str]]:
    return {name: _where(f"ServeReplica:captioner:{name}", *hosts) for name in ("Captioner", "Ingress")}


if __name__ == "__main__":
    (on_host_a if sys.argv[2:] else main)(Path(sys.argv[1]))
