"""The servers side by side: how each is started and where it takes a picture."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.benchmarks.rivals.environments import environment_of
from tests.benchmarks.rivals.settings import RivalSettings
from tests.load.server import captioner_server, own_environment, stop

HERE = "tests.benchmarks.rivals"


@dataclass(frozen=True)
class Endpoint:
    """A server that is up, or about to be: where its pictures go and which process heads it."""

    url: str
    path: str
    field: str  # of the multipart form
    pid: int
    output: Path


Command = Callable[[RivalSettings], list[str]]
Start = Callable[[RivalSettings, Path], AbstractContextManager[Endpoint]]


@contextmanager
def ours(settings: RivalSettings, folder: Path) -> Iterator[Endpoint]:
    """This project's server, with its own defaults but for threads and precision."""
    options = {"torch_threads": settings.threads, "precision": settings.dtype}
    with captioner_server(folder) as server:
        server.deploy(Path(settings.bundle), options)
        yield Endpoint(server.http_url, "/v1/captions", "files", server.process.pid, server.output)


def rival(command: Command, field: str) -> Start:
    """A contestant from its command line."""

    @contextmanager
    def start(settings: RivalSettings, folder: Path) -> Iterator[Endpoint]:
        folder.mkdir(parents=True, exist_ok=True)
        settings = replace(settings, port=_free_port())
        environment = own_environment(
            **settings.to_environment(), OMP_NUM_THREADS=str(settings.threads), HF_HUB_OFFLINE="1",
            RAY_AUTH_MODE="disabled", RAY_USAGE_STATS_ENABLED="0", BENTOML_DO_NOT_TRACK="True",
            BENTOML_HOME=str(folder / "bentoml"),
        )  # fmt: skip
        output = folder / "output"
        with output.open("wb") as sink:
            process = subprocess.Popen(command(settings), env=environment, stdout=sink, stderr=subprocess.STDOUT)
        try:
            yield Endpoint(f"http://127.0.0.1:{settings.port}", "/caption", field, process.pid, output)
        finally:
            stop(process)

    return start


def contestants(environments: Path, wanted: list[str]) -> dict[str, Start]:
    """Those wanted (empty: all) by name, ours first. `environments`: LitServe's and BentoML's are there or are made."""
    known: dict[str, Callable[[], Start]] = {
        "ours": lambda: ours,
        "Ray Serve": lambda: rival(_python("ray_app"), "file"),
        "LitServe": lambda: rival(_python("litserve_app", environment_of("litserve", environments)), "request"),
        "BentoML": lambda: rival(_bentoml(environment_of("bentoml", environments)), "pictures"),
        "FastAPI": lambda: rival(_python("fastapi_app"), "file"),
    }
    if unknown := sorted(set(wanted) - set(known)):
        raise SystemExit(f"There is no server {', '.join(unknown)}; known: {', '.join(known)}.")
    return {name: make() for name, make in known.items() if name in (wanted or known)}


def _python(module: str, bin_directory: Path = Path(sys.executable).parent) -> Command:
    return lambda settings: [str(bin_directory / "python"), "-m", f"{HERE}.{module}"]


def _bentoml(bin_directory: Path) -> Command:
    served = [str(bin_directory / "bentoml"), "serve", f"{HERE}.bento_app:Captions", "--host", "127.0.0.1", "--port"]
    return lambda settings: [*served, str(settings.port)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
