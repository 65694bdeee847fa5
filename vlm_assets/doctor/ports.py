"""Who holds the ports of `make up`: nobody, the service each is for, or something else."""

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import psutil

from vlm_assets.cli.settings import HOST, PortSetting, is_free
from vlm_assets.doctor.finding import Finding, State, ok
from vlm_assets.errors import ConfigError

TIMEOUT_S = 5.0


def port(setting: PortSetting, environment: Mapping[str, str]) -> Finding:
    """A port of `make up`: free, held by the service it is for, or taken by something else."""
    subject, text = f"port {setting.variable[9:].lower()}", environment.get(setting.variable) or str(setting.default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ConfigError(f"{setting.variable} is {text!r}; the port of {setting.service} is a number from 1 to 65535.")
    number = int(text)
    if is_free(number):
        return ok(subject, f"{number} is free for {setting.service}")
    if _PROOFS[setting.variable](f"http://{HOST}:{number}"):
        return ok(subject, f"{number} is {setting.service}")
    advice = f"Stop what listens there, or choose another one: {setting.variable}={number + 1} make up"
    return Finding(State.FAIL, subject, f"{number} of {setting.service} is held by {_holder(number)}", advice)


def _is_dagster(url: str) -> bool:
    return "dagster_webserver_version" in json_of(_get(f"{url}/server_info"))


def _is_mlflow(url: str) -> bool:
    answer = _get(f"{url}/health")
    return answer is not None and answer.status_code == 200 and answer.text.strip() == "OK"


SERVE_SAYS = ("success", "Route table is not populated yet.")


def is_serve(url: str) -> bool:
    """Whether Ray Serve listens at this address: its proxy, or its HAProxy, which may have no route yet."""
    answer = _get(f"{url}/-/healthz")
    return answer is not None and answer.text.strip() in SERVE_SAYS


def _is_ray(url: str) -> bool:
    answer = _get(f"{url}/api/version")
    return answer is not None and (answer.status_code in (401, 403) or "ray_version" in json_of(answer))


_PROOFS: dict[str, Callable[[str], bool]] = {
    "VLM_PORT_UI": _is_dagster,
    "VLM_PORT_MLFLOW": _is_mlflow,
    "VLM_PORT_SERVE": is_serve,
    "VLM_PORT_RAY_DASHBOARD": _is_ray,
}


def _get(url: str) -> httpx.Response | None:
    try:
        return httpx.get(url, timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None


def json_of(answer: httpx.Response | None) -> dict[str, Any]:
    """The JSON object that was answered; {} if it is none."""
    try:
        value = answer.json() if answer is not None else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _holder(number: int) -> str:
    """Name and process id of who listens on the port, as far as this user may know."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == number and one.pid:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass
    return "another program"
