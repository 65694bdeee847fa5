"""Run by test_chart_dagster.py in a process of its own: `run_job.py FOLDER IMAGE`.

FOLDER holds dagster.yaml. Prints as JSON what Dagster itself makes of it: the Job of a run, and the storages.
"""

import json
import sys
from pathlib import Path

import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import RunLauncher
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.runs import RunStorage
from dagster_k8s.client import DagsterKubernetesClient
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "users": [{"name": "u", "user": {"token": "none"}}],
    "current-context": "c",
}


def main(folder: Path, image: str) -> None:
    """No cluster is asked: the account of the pod is the one thing that is not here."""
    (folder / "kubeconfig").write_text(json.dumps(KUBECONFIG))
    file = folder / "dagster.yaml"
    config = yaml.safe_load(file.read_text())
    config["run_launcher"]["config"] |= {
        "load_incluster_config": False, "kubeconfig_file": str(folder / "kubeconfig"),
    }  # fmt: skip
    file.write_text(yaml.safe_dump(config))
    ref = InstanceRef.from_dir(str(folder))
    launcher = ref.run_launcher_data.rehydrate(as_type=RunLauncher)
    context = K8sContainerContext.create_for_run(DagsterRun(job_name="captioner"), launcher, include_run_tags=False)
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config(image, launcher), ["dagster", "api", "execute_run", "…"], "dagster-run-0",
        component="run_worker", user_defined_k8s_config=context.run_k8s_config,
    )  # fmt: skip
    storage = ref.run_storage_data
    print(
        json.dumps(
            {
                "job": DagsterKubernetesClient.production_client().batch_api.api_client.sanitize_for_serialization(job),
                "storage": storage.class_name,
                "settings": ref.settings,
                "is_storage": issubclass(storage_class(storage), RunStorage),
            }
        )
    )


def storage_class(data: object) -> type:
    """Importable, so installed."""
    import importlib

    return getattr(importlib.import_module(data.module_name), data.class_name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
