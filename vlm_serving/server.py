"""A standing Ray Serve on this machine: starts a Ray of its own, serves HTTP, and takes all of it down again.

Models are put on it through the dashboard's REST interface (`vlm_serving.deploying`), which wants a token.
"""

import ipaddress
import json
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from vlm_serving.bundle_source import Pinned, pin_bundle
from vlm_serving.config import ServingConfig
from vlm_serving.deploying import deploy
from vlm_serving.errors import NotRegisteredError, ServingError, SettingsError
from vlm_serving.haproxy import prepare_haproxy
from vlm_serving.images import MEBIBYTE
from vlm_serving.processes import adopt_orphans, claim_port, descendants, end_descendants
from vlm_serving.security import read_keys

LOOPBACK = "127.0.0.1"
TEMP_ROOT = "/tmp"  # short: the paths of Ray's sockets end at 107 bytes
TEMP_PREFIX = "vlm-ray-"
OWNER = "owner.pid"
OBJECT_STORE_BYTES = 256 * MEBIBYTE
REQUEST_TIMEOUT_S = 120
DRAIN_TIMEOUT_S = 6.0
RAY_STOP_TIMEOUT_S = 3.0
VITAL = ("gcs_server", "raylet")  # Ray's own processes without which nothing works


@dataclass(frozen=True)
class ServerOptions:
    """What `python -m vlm_serving serve` takes. Port 0 means a free one."""

    bundle: str | None = None  # a directory or an address
    host: str = LOOPBACK
    port: int = 8000
    dashboard_port: int = 8265
    address_file: Path | None = None
    request_log: Path | None = None
    num_cpus: int | None = None
    deploy_timeout_s: float = 180.0
    worker_logs: bool = False
    allow_anonymous: bool = False
    dashboard_host: str = LOOPBACK
    metrics_port: int | None = None  # of Ray's numbers for Prometheus; None: a free one
    wait_for_bundle: bool = False  # `bundle` is not registered yet: start without a model, one will be deployed


class StopRequested(BaseException):
    """SIGINT or SIGTERM arrived."""


def serve_until_stopped(options: ServerOptions, say: Callable[[str], object] = print) -> None:
    """Start, serve until SIGINT or SIGTERM, stop. Raises ServingError if it cannot start or Ray dies; nothing is left.

    Call it in the main thread. Once ready, `address_file` holds http_url, dashboard_url, pid and auth_token_file.
    """
    require_keys(options)
    require_token(options)
    pinned = _pinned(options, say)  # a bad bundle is told before Ray starts
    version = pinned.version if pinned else ""
    port = claim_port(options.host, options.port, "--port")
    dashboard_port = claim_port(options.dashboard_host, options.dashboard_port, "--dashboard-port")
    if options.address_file:
        options.address_file.unlink(missing_ok=True)  # of a server that was killed
    temp_dir = _make_temp_dir()
    adopt_orphans()
    try:
        with _stop_signals() as arm:
            token_file = _prepare_environment(temp_dir, options)
            say(f"starting Ray (dashboard http://{LOOPBACK}:{dashboard_port}, logs in {temp_dir})")
            _start(options, port, dashboard_port, temp_dir)
            arm()  # Ray has put its own handler in place of ours
            addresses: dict[str, Any] = {
                "http_url": f"http://{_reachable(options.host)}:{port}",
                "dashboard_url": f"http://{LOOPBACK}:{dashboard_port}",
                "pid": os.getpid(),
                "auth_token_file": str(token_file) if token_file else None,
            }
            if pinned:
                say(f"loading bundle {version}")
                deploy(addresses["dashboard_url"], pinned.source, version, timeout_s=options.deploy_timeout_s)
            _announce(addresses, version, options, say)
            _watch()
    except (StopRequested, SystemExit):  # while Ray starts, its own SIGTERM handler is in place, which exits
        pass
    finally:
        _stop(temp_dir, options.address_file, say)


def require_keys(options: ServerOptions) -> None:
    """Raise SettingsError if the whole network could ask without a key and nobody said that it may."""
    if not (_is_loopback(options.host) or options.allow_anonymous or read_keys(ServingConfig.model_validate({}))):
        raise SettingsError(
            f"--host {options.host} lets the network ask, and there are no API keys. Make one with "
            "`python -m vlm_serving new-key NAME`, put its line into a file and set VLM_API_KEYS_FILE to it; or say "
            "--allow-anonymous."
        )


def require_token(options: ServerOptions) -> None:
    """Raise SettingsError if the network could command Ray, or if nobody but this process would know the token."""
    known = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if not _is_loopback(options.dashboard_host) and (os.environ.get("RAY_AUTH_MODE", "token") != "token" or not known):
        raise SettingsError(
            f"--dashboard-host {options.dashboard_host} lets the network deploy models and run commands. Set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH), here and for whoever deploys."
        )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name of this machine
        return False


def _pinned(options: ServerOptions, say: Callable[[str], object]) -> Pinned | None:
    if not options.bundle:
        return None
    try:
        return pin_bundle(options.bundle)
    except NotRegisteredError as error:
        if not options.wait_for_bundle:
            raise
        say(f"no model yet: {error}")
        return None


def _make_temp_dir() -> Path:
    """A new directory for Ray's session; those of servers that were killed are removed first."""
    for stale in Path(TEMP_ROOT).glob(f"{TEMP_PREFIX}*"):
        owner = stale / OWNER
        if owner.is_file() and not psutil.pid_exists(int(owner.read_text() or 0)):
            shutil.rmtree(stale, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=TEMP_ROOT))
    (path / OWNER).write_text(str(os.getpid()))
    return path


def _prepare_environment(temp_dir: Path, options: ServerOptions) -> Path | None:
    """Set what Ray's processes inherit; returns the file with the token, None if authentication is off."""
    environment = os.environ
    package_root = str(Path(__file__).resolve().parent.parent)
    paths = [package_root, *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    environment.pop("RAY_ADDRESS", None)
    environment.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # how often a request that waits in the proxy asks for a free replica; Serve's own half second leaves them idle
    environment.setdefault("RAY_SERVE_ROUTER_RETRY_MAX_BACKOFF_S", "0.1")
    prepare_haproxy(temp_dir / "ha")  # short: see TEMP_ROOT
    log = options.request_log or environment.get("VLM_REQUEST_LOG") or _default_request_log()
    environment["VLM_REQUEST_LOG"] = str(Path(log).absolute())
    return _prepare_token(temp_dir)


def _default_request_log() -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or "dagster_home") / "request_log"


def _prepare_token(temp_dir: Path) -> Path | None:
    """Turn token authentication on unless the environment decides otherwise; the token lies in a 0600 file."""
    environment = os.environ
    if environment.setdefault("RAY_AUTH_MODE", "token") != "token":
        return None
    if not environment.get("RAY_AUTH_TOKEN") and environment.get("RAY_AUTH_TOKEN_PATH"):
        return Path(environment["RAY_AUTH_TOKEN_PATH"])
    token = environment.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    path = temp_dir / "auth_token"
    path.touch(mode=0o600)
    path.write_text(token)
    return path


def _start(options: ServerOptions, port: int, dashboard_port: int, temp_dir: Path) -> None:
    import ray
    from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(
        address="local",
        num_cpus=options.num_cpus,
        include_dashboard=True,
        dashboard_host=options.dashboard_host,
        dashboard_port=dashboard_port,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=options.worker_logs,
        logging_level=logging.ERROR,
        _temp_dir=str(temp_dir),
        _metrics_export_port=options.metrics_port,
    )
    http_options: dict[str, Any] = {"host": options.host, "port": port, "request_timeout_s": REQUEST_TIMEOUT_S}
    serve.start(proxy_location="HeadOnly", http_options=http_options)


def _announce(addresses: dict[str, Any], version: str, options: ServerOptions, say: Callable[[str], object]) -> None:
    model = f"serving model {version}" if version else "no model yet; deploy one to it"
    say(f"ready: {addresses['http_url']} ({model}; playground at /, API at /docs). Ctrl-C stops it.")
    if addresses["auth_token_file"]:
        say(f"deploying wants the token in {addresses['auth_token_file']} (RAY_AUTH_TOKEN_PATH)")
    if options.address_file:
        options.address_file.parent.mkdir(parents=True, exist_ok=True)
        hidden = options.address_file.with_name(f".{options.address_file.name}.{os.getpid()}.tmp")
        hidden.write_text(json.dumps(addresses, indent=1) + "\n")
        hidden.rename(options.address_file)


def _watch() -> None:
    """Wait for a signal; raise if one of Ray's vital processes ends."""
    vital = [one for one in descendants() if one.name() in VITAL]
    while all(one.is_running() and one.status() != "zombie" for one in vital):
        time.sleep(0.5)
    raise ServingError("Ray ended by itself (out of memory, or killed). Start the server again; see its log directory.")


def _stop(temp_dir: Path, address_file: Path | None, say: Callable[[str], object]) -> None:
    """Let replicas finish and write their log, stop Ray, make sure that no process and no file is left."""
    say("stopping")
    started_s = time.monotonic()
    if address_file:
        address_file.unlink(missing_ok=True)
    _within(_drain, DRAIN_TIMEOUT_S)
    _within(_stop_ray, RAY_STOP_TIMEOUT_S)
    end_descendants()
    shutil.rmtree(temp_dir, ignore_errors=True)
    say(f"stopped in {time.monotonic() - started_s:.1f} s")


def _drain() -> None:
    """Delete the applications: replicas answer what they have and close. Quicker and quieter than serve.shutdown."""
    import ray
    from ray import serve

    if ray.is_initialized():
        for name in serve.status().applications:
            serve.delete(name)


def _stop_ray() -> None:
    import ray

    ray.shutdown()


def _within(action: Callable[[], None], timeout_s: float) -> None:
    """Run an action that may hang or fail in a thread of its own; what it does not manage is killed afterwards."""

    def run() -> None:
        try:
            action()
        except Exception as error:
            logging.getLogger("vlm_serving").warning("%s: %s", action.__name__, error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], None]]:
    """SIGINT and SIGTERM raise StopRequested once, further ones are ignored; yields a function that sets this again.

    Set explicitly: a server started with `&` from a script inherits an ignored SIGINT.
    """
    stopping = False

    def handler(*_: object) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise StopRequested

    def arm() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)

    arm()
    yield arm


def _reachable(host: str) -> str:
    return {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
