"""Put the released bundle on Ray Serve, and believe it only when it captions a golden picture over HTTP."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from vlm_assets.children import end_with_parent
from vlm_assets.errors import ConfigError, DeployError

Log = Callable[[str], object]
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
OPTIONS_VARIABLE = "VLM_SERVE_OPTIONS"


@dataclass(frozen=True)
class Deployment:
    """What was deployed where, and what it answered."""

    http_url: str
    model_version: str
    standing: bool  # False: a Ray of our own that has been stopped again
    golden_caption: str
    latency_ms: float


class ServeResource(dg.ConfigurableResource):  # pyright: ignore[reportMissingTypeArgument]
    """Where to serve. `address` is the Ray dashboard of a standing Ray Serve; empty: VLM_SERVE_ADDRESS.

    With neither, a local Ray is started on free ports, asked for one caption and stopped.
    """

    address: str = ""
    http_url: str = ""
    timeout_s: float = START_TIMEOUT_S

    def standing_address(self) -> str:
        """The Ray dashboard of the standing Ray Serve; "" if there is none."""
        return self.address or os.environ.get("VLM_SERVE_ADDRESS", "")

    def options(self) -> dict[str, Any] | None:
        """Settings of the application from VLM_SERVE_OPTIONS, a JSON object; None: those that it runs with."""
        text = os.environ.get(OPTIONS_VARIABLE, "")
        if not text:
            return None
        try:
            settings = json.loads(text)
        except ValueError:
            settings = None
        if not isinstance(settings, dict):
            raise ConfigError(f"{OPTIONS_VARIABLE} is {text!r}; it takes a JSON object of ServingConfig's settings.")
        return settings

    def deploy(self, bundle: Path, version: str, log: Log) -> Deployment:
        """Deploy or hot-update to `bundle`; raises DeployError unless a golden picture gets its recorded caption."""
        address = self.standing_address()
        if not address:
            with local_server(bundle, log, self.timeout_s) as http_url:
                return _prove(http_url, bundle, version, standing=False)
        log(f"deploying {version} to the standing Ray Serve at {address}")
        _deploy_standing(address, bundle, version, self.options(), self.timeout_s)
        http_url = self.http_url or os.environ.get("VLM_SERVE_URL", "http://127.0.0.1:8000")
        return _prove(http_url, bundle, version, standing=True)


def _deploy_standing(
    address: str, bundle: Path, version: str, options: dict[str, Any] | None, timeout_s: float
) -> None:
    from vlm_serving.deploying import deploy
    from vlm_serving.errors import ServingError

    try:
        deploy(address, bundle, version, options=options, timeout_s=timeout_s)
    except (ServingError, OSError) as error:
        raise DeployError(f"Ray Serve at {address} did not take bundle {version}: {error}") from error


@contextmanager
def local_server(bundle: Path, log: Log, timeout_s: float = START_TIMEOUT_S) -> Iterator[str]:
    """A Ray Serve of our own on free loopback ports, serving `bundle`; yields its HTTP address, then stops it."""
    with tempfile.TemporaryDirectory(prefix="vlm-serve-") as folder:
        address_file = Path(folder) / "address.json"
        output = Path(folder) / "output.log"
        command = [
            *(sys.executable, "-m", "vlm_serving", "serve", "--bundle", str(bundle)),
            *("--port", "0", "--dashboard-port", "0", "--address-file", str(address_file)),
        ]
        # the one request it gets is not traffic: it must not reach the log that drift is measured on
        environment = {**os.environ, "VLM_REQUEST_LOG": str(Path(folder) / "requests")}
        for variable in ("RAY_ADDRESS", "VLM_API_KEYS_FILE"):  # nobody else can reach it
            environment.pop(variable, None)
        log("starting a local Ray Serve")
        with output.open("wb") as sink:
            process = subprocess.Popen(
                command, stdout=sink, stderr=subprocess.STDOUT, env=environment, preexec_fn=end_with_parent
            )
        try:
            yield _wait_for_address(process, address_file, output, timeout_s)["http_url"]
        finally:
            _stop(process)


def _wait_for_address(process: "subprocess.Popen[bytes]", file: Path, output: Path, timeout_s: float) -> dict[str, Any]:
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if file.is_file():
            return json.loads(file.read_text())
        if process.poll() is not None:
            raise DeployError(f"The local Ray Serve ended with code {process.returncode}:\n{_tail(output)}")
        time.sleep(0.2)
    raise DeployError(f"The local Ray Serve was not ready within {timeout_s:.0f} s:\n{_tail(output)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _prove(http_url: str, bundle: Path, version: str, *, standing: bool) -> Deployment:
    """Caption the bundle's first golden picture over HTTP and compare text and version."""
    from vlm_serving.client import CaptionClient

    golden = json.loads((bundle / "golden.json").read_text())[0]
    started_s = time.monotonic()
    answer = CaptionClient(http_url).caption([(bundle / golden["picture"]).read_bytes()])[0]
    latency_ms = 1000 * (time.monotonic() - started_s)
    if answer.model_version != version:
        raise DeployError(f"{http_url} answers with model {answer.model_version}, deployed was {version}.")
    if answer.text != golden["caption"]:
        raise DeployError(
            f"{http_url} captions the golden picture {answer.text!r}, recorded was {golden['caption']!r}: "
            "the serving machine does not see what the training machine saw."
        )
    return Deployment(http_url, version, standing, answer.text, latency_ms)


def deploy_champion(log: Log = print) -> bool:
    """Put the ledger's champion on the standing Ray Serve; False if nothing has been released yet."""
    from vlm_assets.release.ledger import Ledger
    from vlm_assets.resources import StoreResource

    store = StoreResource().open()
    champion = Ledger(store).champion()
    if champion is None:
        return False
    ServeResource().deploy(store.directory(champion.artifact) / "bundle", champion.bundle_version, log)
    return True
