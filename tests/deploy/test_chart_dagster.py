"""Dagster itself reads the chart's dagster.yaml, and makes of it the Job of a run, which is held to the policies."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart import RELEASE, ROOT, SITES, data_of, name_of, needs_helm, objects, of_kind
from tests.deploy.test_chart_kinds import needs_schemas, told_of

pytestmark = needs_helm


def seen_by_dagster(site: str, folder: Path) -> dict[str, Any]:
    """What run_job.py prints."""
    (folder / "dagster.yaml").write_text(data_of(objects(site), "dagster")["dagster.yaml"])
    environment = {**os.environ, "POSTGRES_PASSWORD": "secret", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-m", "tests.deploy.run_job", str(folder), "assets:0.1.0"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@needs_schemas
@pytest.mark.parametrize("site", SITES)
def test_a_run_is_a_pod_like_the_others(site: str, tmp_path: Path) -> None:
    seen = seen_by_dagster(site, tmp_path)
    assert seen["storage"] == "PostgresRunStorage" and seen["is_storage"]
    assert seen["settings"]["run_monitoring"]["enabled"] is True
    job = seen["job"]
    assert told_of([job], tmp_path) == []
    template = job["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "run"  # what policies select by
    assert template["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
    assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    spec = template["spec"]
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["serviceAccountName"] == f"{RELEASE}-runs"
    (container,) = spec["containers"]
    assert container["image"] == "assets:0.1.0"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]
    home = data_of(objects(site), "dagster-environment")["DAGSTER_HOME"]
    assert {one["name"]: one.get("value") for one in container["env"]}["DAGSTER_HOME"] == home
    assert f"{home}/dagster.yaml" in {one["mountPath"] for one in container["volumeMounts"]}
    maps = {name_of(one) for one in of_kind(objects(site), "ConfigMap")}
    assert {one["configMapRef"]["name"] for one in container["envFrom"]} <= maps


def test_a_typo_in_the_launchers_settings_is_refused_by_dagster(tmp_path: Path) -> None:
    config = yaml.safe_load(data_of(objects("laptop"), "dagster")["dagster.yaml"])
    config["run_launcher"]["config"]["job_name_space"] = "captions"
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-W", "ignore", "-m", "tests.deploy.run_job", str(tmp_path), "assets:0.1.0"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "job_name_space" in done.stderr


@pytest.mark.parametrize("site", SITES)
def test_limits_are_those_of_one_machine(site: str) -> None:
    """What dagster_home/dagster.yaml and the chart both say, they say alike."""
    ours = yaml.safe_load(data_of(objects(site), "dagster")["dagster.yaml"])
    plain = yaml.safe_load((ROOT / "dagster_home" / "dagster.yaml").read_text())
    assert ours["concurrency"]["pools"] == plain["concurrency"]["pools"]
    for key in ("run_retries", "telemetry", "nux"):
        assert ours[key] == plain[key]
    for key in ("cancel_timeout_seconds", "max_runtime_seconds", "free_slots_after_run_end_seconds"):
        assert ours["run_monitoring"][key] == plain["run_monitoring"][key]
