"""The doctor before real broken states: it names what is wrong and what to do, and its exit code tells a script."""

import os
import shutil
import socket
import subprocess
import sys
import time
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.http_server import serving
from tests.mlflow_server import run_mlflow
from tests.unit.vlm_assets.data.test_disk_full import on_a_small_disk
from tests.unit.vlm_assets.release.place import Place
from vlm_assets.cli.bootstrap import prepare_instance
from vlm_assets.cli.settings import PORTS
from vlm_assets.doctor import machine, ports, servers, state
from vlm_assets.doctor.finding import Finding, State, examine, table
from vlm_serving.processes import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
SMALL_STORE = """
import os, sys
os.environ["VLM_STORE"] = sys.argv[1]
from vlm_assets.doctor import state
finding = state.store()
print(finding.state, finding.found, finding.advice, sep="|")
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh instance, as `make up` prepares it."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    prepare_instance(tmp_path / "home")
    return tmp_path / "home"


def doctor(home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    numbers = {setting.variable: str(free_port()) for setting in PORTS}
    return subprocess.run(
        [sys.executable, "-m", "vlm_assets", "doctor"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DAGSTER_HOME": str(home), **numbers, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sound_home_and_then_four_faults_at_once(home: Path):
    sound = doctor(home)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert sound.stdout.splitlines()[-1] == "16 looked at, 0 failed, 0 to watch."
    assert " packages as required" in sound.stdout
    shutil.rmtree(home / "store")
    (home / "store").write_text("")
    (home / "mlflow.db").write_text("no database at all")
    (home / "history" / "runs.db").write_text("neither")
    broken = doctor(home, VLM_TRACKER="excel", VLM_STROE="/data")
    assert broken.returncode == 1
    failed = {line.split()[1] for line in broken.stdout.splitlines() if line.startswith("FAIL")}
    assert failed == {"settings", "store", "database", "daemon", "MLflow"}
    assert "VLM_TRACKER is 'excel'; it takes mlflow or wandb. VLM_STROE is read by nothing (meant: VLM_STORE?)." in (
        broken.stdout
    )
    assert "mlflow.db is damaged: file is not a database" in broken.stdout
    assert "-> Restore mlflow.db from a backup (docs/operations.md)." in broken.stdout


def test_a_wrong_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old = tmp_path / "mlflow-2.1.0.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow\nVersion: 2.1.0\n")
    assert machine.versions().state is State.OK
    monkeypatch.syspath_prepend(tmp_path)
    finding = machine.versions()
    assert (finding.state, finding.found) == (State.FAIL, "mlflow 2.1.0, required is <4,>=3.17")
    assert finding.advice.startswith("make setup")


def test_a_port_that_something_else_holds():
    (ui, *_), number = PORTS, free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", number))
        holder.listen()
        finding = ports.port(ui, {ui.variable: str(number)})
    assert finding.state is State.FAIL
    assert finding.found.startswith(f"{number} of the Dagster UI is held by ") and f"(pid {os.getpid()})" in (
        finding.found
    )
    assert finding.advice.endswith(f"VLM_PORT_UI={number + 1} make up")
    assert ports.port(ui, {ui.variable: str(number)}).found == f"{number} is free for the Dagster UI"


def test_mlflow_running_and_then_stopped(tmp_path: Path):
    mlflow_port = next(setting for setting in PORTS if setting.variable == "VLM_PORT_MLFLOW")
    with run_mlflow(tmp_path) as uri:
        number = uri.rsplit(":", 1)[1]
        assert servers.mlflow({"MLFLOW_TRACKING_URI": uri}, tmp_path) == Finding(State.OK, "MLflow", f"{uri} answers")
        assert ports.port(mlflow_port, {"VLM_PORT_MLFLOW": number}).found == f"{number} is MLflow"
        assert servers.clock({"MLFLOW_TRACKING_URI": uri}, time.time()).state is State.OK
    stopped = servers.mlflow({"MLFLOW_TRACKING_URI": uri}, tmp_path)
    assert stopped.state is State.FAIL
    assert stopped.found.startswith(f"nothing answers at {uri} (")
    assert stopped.advice.startswith("Start it")


def test_a_disk_that_is_almost_full(tmp_path: Path):
    (line,) = on_a_small_disk(tmp_path, "1m", SMALL_STORE)
    told, found, advice = line.split("|")
    assert told == "FAIL"
    assert found.endswith("store: writes and reads; 0.0 GiB free")
    assert advice == f"Free some space below {tmp_path}/store, or set VLM_STORE to a larger disk."


def test_a_disk_that_is_full(tmp_path: Path):
    fill = 'open(os.path.join(os.path.dirname(sys.argv[1]), "fat"), "wb").write(b"0" * 600_000)'
    script = SMALL_STORE.replace("finding =", f"try:\n    {fill}\nexcept OSError:\n    pass\nfinding =")
    (line,) = on_a_small_disk(tmp_path, "500k", script)
    assert line.startswith("FAIL|No room to write below ")
    assert "No space left on device" in line


def test_a_champion_whose_weights_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = Place(tmp_path)
    place.promote(0)
    monkeypatch.setenv("VLM_STORE", str(tmp_path / "store"))
    assert state.champion().found == f"bundle {place.bundles[0]}, ledger entry 1, by promote"
    (weights,) = place.store.directory(place.models[0]).rglob("*.safetensors")
    weights.unlink()
    finding = examine("champion", state.champion)
    assert finding.state is State.FAIL
    assert "is damaged: remove" in finding.found and "materialize finetuned_model again" in finding.found


def test_a_ray_that_is_away_and_one_that_serves_another_model():
    away = f"http://127.0.0.1:{free_port()}"
    (finding,) = servers.serving({"VLM_SERVE_ADDRESS": away}, "")
    assert finding.state is State.FAIL
    assert finding.found.startswith(f"no dashboard answers at {away}")

    with serving(OldModel) as url:
        ray, captions = servers.serving({"VLM_SERVE_ADDRESS": url, "VLM_SERVE_URL": url}, "new")
    assert ray.state is State.OK
    assert captions.found == f"{url} serves bundle old, the ledger's champion is new"
    assert captions.advice == "python -m vlm_assets deploy"


class OldModel(BaseHTTPRequestHandler):
    """Answers as Ray's dashboard and the captioner do (GET /api/version, /readyz), an hour late by its own clock."""

    def do_GET(self) -> None:
        body = b'{"ray_version": "2.60.0"}' if self.path == "/api/version" else b'{"model": {"version": "old"}}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() - 3600, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


def test_clocks_that_differ():
    with serving(OldModel) as url:
        finding = servers.clock({"VLM_SERVE_ADDRESS": url}, time.time())
    assert finding.state is State.FAIL
    assert finding.found.endswith(f"s ahead of {url}") and "36" in finding.found
    future = servers.clock({}, time.time() + 7200)
    assert (future.state, future.found) == (State.FAIL, "the newest ledger entry is 7200 s in the future")


def test_a_home_that_takes_no_file(tmp_path: Path):
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*unshare, "mount -t tmpfs none /mnt"]).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    (tmp_path / "home").mkdir()
    read_only = (
        'mount -t tmpfs none "$1" && touch "$1/dagster.yaml" && mount -o remount,ro "$1" && exec "$2" -c "$3" "$1"'
    )
    code = (
        "import sys; from vlm_assets.doctor import state; found = state.home({'DAGSTER_HOME': sys.argv[1]}); "
        "print(found.state, found.found, sep='|')"
    )
    command = [*unshare, read_only, "sh", str(tmp_path / "home"), sys.executable, code]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert output == f"FAIL|cannot write to {tmp_path}/home: Read-only file system\n"


def test_no_home_yet_is_no_failure(tmp_path: Path):
    finding = state.home({"DAGSTER_HOME": str(tmp_path / "none")})
    assert (finding.state, finding.advice) == (State.WARN, "make up (or make demo) prepares it.")
    assert not (tmp_path / "none").exists()


def test_a_check_that_dies_is_a_finding_and_a_port_that_is_none_too():
    ui = PORTS[0]
    finding = examine("port ui", partial(ports.port, ui, {ui.variable: "http"}))
    assert finding.state is State.FAIL
    assert (
        finding.found == "ConfigError: VLM_PORT_UI is 'http'; the port of the Dagster UI is a number from 1 to 65535."
    )
    assert table([finding]).splitlines()[-1] == "1 looked at, 1 failed, 0 to watch."
