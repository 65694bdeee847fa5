"""What every pod must be, and that whatever an object names is there."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy.chart import (
    RELEASE,
    SITES,
    Object,
    Pod,
    data_of,
    name_of,
    needs_helm,
    objects,
    of_kind,
    pods,
)

pytestmark = [needs_helm, pytest.mark.parametrize("site", SITES)]
OPERATORS = {f"{RELEASE}-captioner-serve-svc", f"{RELEASE}-captioner-head-svc"}  # Services that KubeRay makes
ASKING = {f"{RELEASE}-{name}" for name in ("dagster", "webserver", "runs", "ray")}  # accounts with a Role


def run_pod(found: list[Object]) -> Pod:
    """A run's pod as dagster.yaml describes it, in Kubernetes' own words."""
    config = yaml.safe_load(data_of(found, "dagster")["dagster.yaml"])["run_launcher"]["config"]
    shape = config["run_k8s_config"]
    spec = {
        **camel(shape["pod_spec_config"]),
        "serviceAccountName": config["service_account_name"],
        "containers": [{"name": "run", "image": "of-the-code-location:0", **camel(shape["container_config"])}],
    }
    return Pod("run", shape["pod_template_spec_metadata"]["labels"], spec)


def camel(value: Any) -> Any:
    """`volume_mounts` -> `volumeMounts`, all the way down."""
    if isinstance(value, dict):
        return {words[0] + "".join(map(str.title, words[1:])): camel(one)
                for key, one in value.items() for words in [key.split("_")]}  # fmt: skip
    return [camel(one) for one in value] if isinstance(value, list) else value


def every_pod(found: list[Object]) -> Iterator[Pod]:
    yield from pods(found)
    yield run_pod(found)


def test_no_pod_can_do_more_than_it_must(site: str) -> None:
    for pod in every_pod(objects(site)):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 10001, pod
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod.spec), pod
        assert not any("hostPath" in volume for volume in pod.spec.get("volumes", [])), pod
        for container in pod.containers:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True, pod
            assert own["allowPrivilegeEscalation"] is False and own["runAsNonRoot"] is True, pod
            assert own["capabilities"] == {"drop": ["ALL"]}, pod
            assert not own.get("privileged"), pod


def test_the_autoscaler_beside_the_head_is_held_to_the_same(site: str) -> None:
    (service,) = of_kind(objects(site), "RayService")
    options = service["spec"]["rayClusterConfig"].get("autoscalerOptions")
    assert (options is None) == (site == "laptop")
    if options:
        assert options["securityContext"]["readOnlyRootFilesystem"] is True
        assert options["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert options["resources"]["limits"]["memory"]


def test_every_container_has_requests_and_a_limit_of_memory(site: str) -> None:
    for pod in every_pod(objects(site)):
        for container in pod.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), pod
            assert "memory" in resources["limits"], pod
            for gpus in (resources["requests"].get("nvidia.com/gpu"), resources["limits"].get("nvidia.com/gpu")):
                assert gpus in (None, "1"), pod  # Kubernetes wants both equal


def test_images_have_a_version_that_stays(site: str) -> None:
    for pod in pods(objects(site)):
        for container in pod.containers:
            name, _, tag = container["image"].rpartition(":")
            assert name and tag and tag != "latest", container["image"]


def test_a_registry_and_a_digest_are_values(site: str) -> None:
    digest = "sha256:" + "a" * 64
    found = objects(site, "images.registry=registry.example:5000/team", f"images.assets.digest={digest}")
    images = {container["image"] for pod in pods(found) for container in pod.containers}
    assert {image for image in images if "vlm-" in image} == {
        "registry.example:5000/team/vlm-serving:0.1.0",
        f"registry.example:5000/team/vlm-assets@{digest}",
    }


def test_long_running_pods_have_probes(site: str) -> None:
    for pod in pods(objects(site)):
        if pod.of.endswith("submitter"):
            continue
        for container in pod.containers:
            assert "livenessProbe" in container, pod
            if "daemon" not in pod.of:  # nobody calls it
                assert "readinessProbe" in container and "startupProbe" in container, pod
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                assert port is None or port in ports, (pod, probe)


def test_no_secret_stands_in_the_objects(site: str) -> None:
    found = objects(site)
    assert of_kind(found, "Secret") == []
    for pod in every_pod(found):
        for container in pod.containers:
            for variable in container.get("env", []):
                if (
                    any(word in variable["name"] for word in ("PASSWORD", "TOKEN", "KEY"))
                    and "FILE" not in variable["name"]
                ):
                    assert "value" not in variable and "secretKeyRef" in variable["valueFrom"], variable["name"]
    for one in of_kind(found, "ConfigMap"):
        assert not [key for key in one["data"] if any(word in key for word in ("PASSWORD", "SECRET", "TOKEN="))]


def test_whatever_a_pod_names_is_there(site: str) -> None:
    found = objects(site)
    claims = {name_of(one) for one in of_kind(found, "PersistentVolumeClaim")}
    accounts = {name_of(one) for one in of_kind(found, "ServiceAccount")}
    maps = {name_of(one): one["data"] for one in of_kind(found, "ConfigMap")}
    announced = {"vlm-postgresql", "vlm-ray-token", "vlm-api-keys", "vlm-caller-key"}
    for pod in every_pod(found):
        assert pod.spec["serviceAccountName"] in accounts, pod
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for volume in volumes.values():
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims, pod
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps, pod
            if "secret" in volume:
                assert volume["secret"]["secretName"] in announced, pod
        templates = {"data"} if "postgresql" in pod.of else set[str]()  # volumeClaimTemplates
        for container in pod.containers:
            mounts = container.get("volumeMounts", [])
            assert {mount["name"] for mount in mounts} <= set(volumes) | templates, pod
            assert len({mount["mountPath"] for mount in mounts}) == len(mounts), pod
            for mount in mounts:
                if "configMap" in volumes.get(mount["name"], {}) and "subPath" in mount:
                    assert mount["subPath"] in maps[volumes[mount["name"]]["configMap"]["name"]], pod
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, pod
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    assert variable["valueFrom"]["secretKeyRef"]["name"] in announced, pod


def test_selectors_match_pods_and_ports(site: str) -> None:
    found = objects(site)
    all_pods = list(every_pod(found))
    services = {name_of(one): one for one in of_kind(found, "Service")}
    for name, service in services.items():
        matched = [pod for pod in all_pods if service["spec"]["selector"].items() <= pod.labels.items()]
        assert matched, name
        for port in service["spec"]["ports"]:
            for pod in matched:
                if "submitter" not in pod.of:
                    ports = {one["name"] for container in pod.containers for one in container["ports"]}
                    assert port["targetPort"] in ports, (name, pod)
    for one in of_kind(found, "NetworkPolicy") + of_kind(found, "PodDisruptionBudget"):
        selector = one["spec"].get("podSelector") or one["spec"]["selector"]
        assert [pod for pod in all_pods if selects(selector, pod)] or "training" in name_of(one), name_of(one)
    for one in of_kind(found, "Ingress"):
        for rule in one["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                target = path["backend"]["service"]
                ports = [port["name"] for port in services.get(target["name"], {}).get("spec", {}).get("ports", [])]
                assert target["name"] in OPERATORS or target["port"]["name"] in ports, target
        assert {host for tls in one["spec"]["tls"] for host in tls["hosts"]} == {
            rule["host"] for rule in one["spec"]["rules"]
        }
    for one in of_kind(found, "ServiceMonitor"):
        wanted = one["spec"]["selector"]["matchLabels"]
        (service,) = (each for each in services.values() if wanted.items() <= each["metadata"]["labels"].items())
        assert one["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def selects(selector: dict[str, Any], pod: Pod) -> bool:
    """Kubernetes' matchLabels and `In`."""
    if not selector.get("matchLabels", {}).items() <= pod.labels.items():
        return False
    return all(pod.labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))


def test_nothing_may_talk_until_a_policy_with_a_name_lets_it(site: str) -> None:
    found = objects(site)
    policies = {name_of(one).removeprefix(f"{RELEASE}-"): one["spec"] for one in of_kind(found, "NetworkPolicy")}
    deny = policies.pop("default-deny")
    assert deny["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in deny and "egress" not in deny
    for pod in every_pod(found):
        assert selects(deny["podSelector"], pod), pod
    doors = {port["port"] for one in policies.values() for rule in one.get("ingress", [])
             for port in rule.get("ports", []) if "namespaceSelector" in rule["from"][0]}  # fmt: skip
    assert doors <= {3000, 5000, 8000, 8080, 8265}  # 8404 and 9101, HAProxy's, are open to nobody outside
    for name, one in policies.items():
        for rule in one.get("ingress", []) + one.get("egress", []):
            assert rule.get("ports") or name in (
                "ray-inside-ingress", "ray-inside-egress", "training-inside-ingress", "training-inside-egress"
            ), name  # fmt: skip


def test_rights_are_named_one_by_one(site: str) -> None:
    found = objects(site)
    assert of_kind(found, "ClusterRole") == of_kind(found, "ClusterRoleBinding") == []
    roles = {name_of(one): one for one in of_kind(found, "Role")}
    bindings = of_kind(found, "RoleBinding")
    accounts = {name_of(one) for one in of_kind(found, "ServiceAccount")}
    for role in roles.values():
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"] and "pods/exec" not in rule["resources"]
    assert {one["roleRef"]["name"] for one in bindings} == set(roles)
    bound = {subject["name"] for one in bindings for subject in one["subjects"]}
    assert bound <= accounts & ASKING
    for pod in every_pod(found):  # a token of the API only where a Role makes use of it
        if pod.spec.get("automountServiceAccountToken", True) and pod.of != "run":
            assert pod.spec["serviceAccountName"] in bound, pod


def test_serving_sees_nothing_of_the_volume_but_its_log(site: str) -> None:
    for pod in pods(objects(site)):
        if pod.of.startswith("RayService"):
            for container in pod.containers:
                (mount,) = (one for one in container["volumeMounts"] if one["name"] == "shared")
                assert mount["subPath"] == "request_log"


def test_budgets_leave_room_for_a_drain(site: str) -> None:
    found = objects(site)
    budgets = {name_of(one).removeprefix(f"{RELEASE}-"): one["spec"] for one in of_kind(found, "PodDisruptionBudget")}
    assert sorted(budgets) == (["ray-worker", "webserver"] if site == "gpu-pool" else [])
    for spec in budgets.values():
        assert spec["minAvailable"] == 1  # of two
