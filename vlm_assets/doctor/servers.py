"""The servers around: MLflow, Ray Serve and the model it serves, the clock they go by."""

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from vlm_assets.cli.services import is_remote, tracking_uri
from vlm_assets.cli.settings import HOST
from vlm_assets.doctor.finding import Finding, State, ok
from vlm_assets.doctor.ports import TIMEOUT_S, is_serve, json_of

CLOCK_LIMIT_S = 60.0  # S3 refuses at 15 min; a minute is already no clock that anything keeps


def mlflow(environment: Mapping[str, str], home: Path) -> Finding:
    """MLflow's server answers a question that reaches its database; or its file is a sound database."""
    uri = tracking_uri(environment, home)
    if is_remote(uri):
        return _mlflow_server(uri)
    if not uri.startswith("sqlite:///"):
        return Finding(State.WARN, "MLflow", f"{uri.split(':')[0]}: not looked at", "Ask that database itself.")
    file = Path(uri.removeprefix("sqlite:///"))
    if not file.is_file():
        return Finding(State.ABSENT, "MLflow", f"{file} is not there yet")
    return _sqlite(file)


def _mlflow_server(uri: str) -> Finding:
    try:
        answer = httpx.get(
            f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search",
            params={"max_results": 1},
            timeout=TIMEOUT_S,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        advice = "Start it (make up starts one of its own if MLFLOW_TRACKING_URI is unset), or correct the address."
        return Finding(State.FAIL, "MLflow", f"nothing answers at {uri} ({_reason(error)})", advice)
    if answer.status_code == 403:
        advice = "mlflow server --allowed-hosts must list this host name; or name it by its IP address."
        return Finding(State.FAIL, "MLflow", f"{uri} answers 403", advice)
    if answer.status_code != 200:
        advice = "See the server's log; is its database there, and migrated (mlflow db upgrade URL)?"
        return Finding(State.FAIL, "MLflow", f"{uri} answers {answer.status_code}: {answer.text[:200]}", advice)
    return ok("MLflow", f"{uri} answers")


def _sqlite(file: Path) -> Finding:
    import sqlite3

    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=TIMEOUT_S) as connection:
            told = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        told = str(error)
    if told != "ok":
        advice = f"Restore {file.name} from a backup (docs/operations.md)."
        return Finding(State.FAIL, "MLflow", f"{file} is damaged: {told}", advice)
    return ok("MLflow", f"{file}: sound")


def serving(environment: Mapping[str, str], champion_version: str) -> list[Finding]:
    """The standing Ray Serve, and that it answers with the ledger's champion.

    It is the one at VLM_SERVE_ADDRESS or, beside `make up` in another terminal, the one on the port of `make up`.
    """
    from vlm_serving.deploying import auth_headers

    address = environment.get("VLM_SERVE_ADDRESS", "").rstrip("/")
    if not address:
        ray = Finding(State.ABSENT, "Ray", "no standing Ray Serve is named (VLM_SERVE_ADDRESS)")
        here = f"http://{HOST}:{environment.get('VLM_PORT_SERVE') or 8000}"
        return [ray, _served(here, champion_version)] if is_serve(here) else [ray]
    try:
        answer = httpx.get(f"{address}/api/version", headers=auth_headers(), timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        advice = "make up starts one; on a cluster see docs/operations.md, 'Ray's head (GCS) is gone'."
        return [Finding(State.FAIL, "Ray", f"no dashboard answers at {address} ({_reason(error)})", advice)]
    if answer.status_code in (401, 403):
        advice = "Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token."
        return [Finding(State.FAIL, "Ray", f"{address} refused the token ({answer.status_code})", advice)]
    ray = ok("Ray", f"{address}: Ray {json_of(answer).get('ray_version', '?')}")
    return [ray, _served(environment.get("VLM_SERVE_URL") or "http://127.0.0.1:8000", champion_version)]


def _served(url: str, champion_version: str) -> Finding:
    try:
        answer = httpx.get(f"{url}/readyz", timeout=TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        return Finding(
            State.FAIL, "captions", f"nothing answers at {url} ({_reason(error)})", "python -m vlm_assets deploy"
        )
    told = json_of(answer)
    version = (told.get("model") or {}).get("version", "")
    if answer.status_code != 200:
        why = told.get("error") or told.get("loading") or f"status {answer.status_code}"
        return Finding(State.FAIL, "captions", f"{url} is not ready: {why}", "python -m vlm_assets deploy")
    if champion_version and version != champion_version:
        found = f"{url} serves bundle {version}, the ledger's champion is {champion_version}"
        return Finding(State.FAIL, "captions", found, "python -m vlm_assets deploy")
    return ok("captions", f"{url} serves bundle {version}")


def ray_cluster(environment: Mapping[str, str]) -> Finding:
    """The cluster at VLM_RAY_ADDRESS takes connections."""
    from vlm_assets.ray_cluster import knock

    address = environment.get("VLM_RAY_ADDRESS", "")
    if not address:
        return Finding(State.ABSENT, "cluster", "none is named (VLM_RAY_ADDRESS): Ray starts here when it is needed")
    try:
        knock(address)
    except OSError as error:
        return Finding(State.FAIL, "cluster", f"nobody listens at {address}: {error}", "Start it, or correct the name.")
    return ok("cluster", f"{address} takes connections")


def clock(environment: Mapping[str, str], known_past_s: float) -> Finding:
    """This machine's clock against those of the servers it talks to, and against what was written here before."""
    if known_past_s > time.time() + CLOCK_LIMIT_S:
        found = f"the newest ledger entry is {known_past_s - time.time():.0f} s in the future"
        return Finding(State.FAIL, "clock", found, _SET_THE_CLOCK)
    names = ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "VLM_SERVE_ADDRESS")
    addresses = [url for name in names if (url := environment.get(name, "")).startswith("http")]
    offsets = {url: offset for url in addresses if (offset := _offset_s(url)) is not None}
    if not offsets:
        return ok("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC; no server to compare it with")
    url, offset = max(offsets.items(), key=lambda pair: abs(pair[1]))
    found = f"{abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} {url}"
    return ok("clock", found) if abs(offset) <= CLOCK_LIMIT_S else Finding(State.FAIL, "clock", found, _SET_THE_CLOCK)


_SET_THE_CLOCK = "timedatectl set-ntp true (or mend the other machine's clock): S3 and tokens refuse wrong times."


def _offset_s(url: str) -> float | None:
    """How far the server's clock is ahead, to a second; None if it does not tell."""
    try:
        date = httpx.get(url, timeout=TIMEOUT_S, trust_env=False).headers.get("date", "")
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (httpx.HTTPError, ValueError):
        return None


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
