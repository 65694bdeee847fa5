"""Put a bundle on a standing Ray Serve, through the dashboard's REST interface: the first one, and each that follows.

A deployment that only brings another bundle changes nothing but `user_config`: replicas load it beside the model that
serves, and no request is dropped. What else runs on that Serve stays as it is.
"""

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from vlm_serving.bundle_source import is_directory
from vlm_serving.errors import DeployFailedError

APPLICATION = "captioner"
DEPLOYMENT = "Captioner"
IMPORT_PATH = "vlm_serving.app:build_app"
REST_PATH = "/api/serve/applications/"
POLL_S = 0.25
START_S = 10.0
REQUEST_TIMEOUT_S = 30.0
EXCEPTION = re.compile(r"(?:\w+\.)*\w+(?:Error|Exception)\b.*:")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


def deploy(
    dashboard_url: str,
    bundle_dir: Path | str,
    version: str,
    *,
    options: Mapping[str, Any] | None = None,
    timeout_s: float = 180.0,
    http_url: str | None = None,
) -> None:
    """Deploy or hot-update, and return once every replica says that it serves `version`.

    `options` are settings of vlm_serving.config.ServingConfig; changing them replaces the replicas, None keeps those
    of the running application. `http_url` is where Serve answers if its own settings do not tell (a cluster's service).
    `bundle_dir` may also be an address, see vlm_serving.bundle_source: then replicas fetch it, each machine for itself.
    Raises DeployFailedError; a bundle that the replicas refuse is taken back, so that the model before serves on and
    new replicas start with it.
    """
    rollout = Rollout(dashboard_url, version, timeout_s, http_url)
    with rollout.client:
        address = str(bundle_dir)
        rollout.run(str(Path(address).resolve()) if is_directory(address) else address, options)


def application_config(
    previous: Mapping[str, Any] | None, bundle: str, version: str, options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """One application of a Serve config; equal to `previous` but for what has to change."""
    settings = dict(options) if options is not None else dict((previous or {}).get("args") or {})
    deployments = {one["name"]: dict(one) for one in (previous or {}).get("deployments") or []}
    user_config = (deployments.get(DEPLOYMENT) or {}).get("user_config") or {}
    user_config = {**user_config, "bundle": bundle, "version": version}
    deployments[DEPLOYMENT] = {**deployments.get(DEPLOYMENT, {}), "name": DEPLOYMENT, "user_config": user_config}
    return {
        **(previous or {}),
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": settings,
        "deployments": list(deployments.values()),
    }


class Rollout:
    """One deployment on its way: put the config, watch, take it back if it is refused."""

    def __init__(self, dashboard_url: str, version: str, timeout_s: float, http_url: str | None) -> None:
        self.dashboard_url = dashboard_url.rstrip("/")
        self.version = version
        self.http_url = http_url
        self.deadline_s = time.monotonic() + timeout_s
        self.timeout_s = timeout_s
        self.client = httpx.Client(timeout=REQUEST_TIMEOUT_S, headers=auth_headers(), trust_env=False)

    def run(self, bundle: str, options: Mapping[str, Any] | None) -> None:
        """Deploy and wait; see `deploy`."""
        details = self._details_when_up()
        previous = _deployed(details)
        self._put(details, application_config(previous, bundle, self.version, options))
        try:
            self._wait()
        except DeployFailedError as error:
            if previous is None:
                raise
            self._put(self._details(), previous)
            raise DeployFailedError(f"{error}\nThe deployment before it was put back and serves on.") from error

    def _wait(self) -> None:
        told = "nothing yet"
        while time.monotonic() < self.deadline_s:
            details = self._details()
            application = details["applications"].get(APPLICATION, {})
            told = _told(application)
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                raise DeployFailedError(f"Ray Serve did not take bundle {self.version}: {essence(told)}")
            replicas = _running_replicas(application)
            http_url = self.http_url or serve_url(details, self.dashboard_url)
            if self._all_serve(http_url, replicas) and application.get("status") == "RUNNING":
                return
            time.sleep(POLL_S)
        raise DeployFailedError(
            f"Bundle {self.version} was not serving after {self.timeout_s:.0f} s; Serve's last word: {essence(told)}. "
            f"Look at {self.dashboard_url}/#/serve, or allow more time."
        )

    def _all_serve(self, http_url: str, replicas: set[str]) -> bool:
        """Ask until each replica has told the version wanted; several times, for Serve chooses who answers.

        Where all of them sleep, the question wakes one, which is there when it is asked again.
        """
        missing = set(replicas)
        for _ in range(4 * max(1, len(replicas))):
            try:
                answer = httpx.get(f"{http_url}/readyz?fresh=true", timeout=REQUEST_TIMEOUT_S, trust_env=False)
                state = answer.json()
            except (httpx.HTTPError, ValueError):
                return False
            if state.get("refused") == self.version:
                raise DeployFailedError(f"The replica refused bundle {self.version}: {state['error']}")
            if state.get("model", {}).get("version") != self.version:
                return False
            missing.discard(state.get("replica", ""))
            if not missing:
                return bool(replicas)
        return False

    def _details_when_up(self) -> dict[str, Any]:
        """The first question, repeated for a while: the dashboard may still be starting."""
        deadline_s = min(self.deadline_s, time.monotonic() + START_S)
        while True:
            try:
                return self._details()
            except DeployFailedError as error:
                if not isinstance(error.__cause__, httpx.TransportError) or time.monotonic() > deadline_s:
                    raise
                time.sleep(POLL_S)

    def _details(self) -> dict[str, Any]:
        return self._ask("GET").json()

    def _put(self, details: Mapping[str, Any], application: Mapping[str, Any]) -> None:
        others = [
            one["deployed_app_config"]
            for name, one in details["applications"].items()
            if name != APPLICATION and one.get("deployed_app_config")
        ]
        config: dict[str, Any] = {"applications": [*others, application]}
        # Serve takes these only when it starts; repeating them keeps it from warning of a change
        config |= {key: details[key] for key in ("proxy_location", "http_options") if details.get(key)}
        self._ask("PUT", json=config)

    def _ask(self, method: str, **arguments: Any) -> httpx.Response:
        url = self.dashboard_url + REST_PATH
        try:
            answer = self.client.request(method, url, **arguments)
        except httpx.HTTPError as error:
            raise DeployFailedError(
                f"No Ray dashboard answers at {self.dashboard_url} ({type(error).__name__}: {error}). "
                "Start one with `python -m vlm_serving serve`, or correct VLM_SERVE_ADDRESS."
            ) from error
        if answer.status_code in (401, 403):
            raise DeployFailedError(
                f"The Ray dashboard at {self.dashboard_url} refused the token ({answer.status_code}). Set "
                "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's; `python -m vlm_serving serve` names the file."
            )
        if answer.status_code != 200:
            raise DeployFailedError(f"{method} {url} answered {answer.status_code}: {essence(answer.text)}")
        return answer


def auth_headers(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """A Ray cluster's bearer token from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token; none if disabled.

    Read here at each call: Ray's own loader keeps the first token that a process saw.
    """
    if environment.get("RAY_AUTH_MODE") == "disabled":
        return {}
    token = environment.get("RAY_AUTH_TOKEN", "")
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not token and path.is_file():
        token = path.read_text().strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


def serve_url(details: Mapping[str, Any], dashboard_url: str) -> str:
    """Where Serve answers HTTP by its own settings; one that listens on every address is asked on the dashboard's."""
    options: Mapping[str, Any] = details.get("http_options") or {}
    host = options.get("host") or "127.0.0.1"
    if host in ANY_ADDRESS:
        host = urlsplit(dashboard_url).hostname or ANY_ADDRESS[host]
    return f"http://{host}:{options.get('port', 8000)}"


def _deployed(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of the application as it runs; None if it never ran or failed, for there is nothing to go back to."""
    application = details["applications"].get(APPLICATION)
    if not application or application.get("status") in ("DEPLOY_FAILED", "DELETING", "NOT_STARTED"):
        return None
    return application.get("deployed_app_config")


def _running_replicas(application: Mapping[str, Any]) -> set[str]:
    """Ids of the replicas that get traffic; empty while any is being exchanged."""
    deployment: Mapping[str, Any] = application.get("deployments", {}).get(DEPLOYMENT, {})
    replicas = deployment.get("replicas", [])
    return {replica["replica_id"] for replica in replicas if replica["state"] == "RUNNING"}


def _told(application: Mapping[str, Any]) -> str:
    """What Serve says of the application and of its deployment; the reason of a failed replica is in the latter."""
    deployment: Mapping[str, Any] = application.get("deployments", {}).get(DEPLOYMENT, {})
    parts = (application.get("status", "UNKNOWN"), application.get("message", ""), deployment.get("message", ""))
    return "\n".join(part for part in parts if part)


def essence(text: str, limit: int = 1500) -> str:
    """The reason in a long message: of tracebacks, one inside the other, from the last exception's own line on."""
    lines = COLOURS.sub("", text).strip().splitlines()
    reasons = [number for number, line in enumerate(lines) if EXCEPTION.match(line)]
    reason = "\n".join(lines[reasons[-1] :] if reasons else lines)
    return reason if len(reason) <= limit else reason[:limit] + " …"
