"""`make monitoring`: Prometheus, Alertmanager and the exporters beside `make up`, in a terminal of their own.

The configuration is deploy/prometheus/, with this machine's home and ports put into a copy in the home.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from vlm_assets.cli.services import PROJECT, answers
from vlm_assets.cli.settings import HOST, LOGS, MonitoringPorts, open_home, quiet_environment, read_monitoring_ports
from vlm_assets.cli.supervisor import Service, Supervisor, heed_signals
from vlm_assets.errors import ConfigError

DEPLOY = PROJECT / "deploy" / "prometheus"
UNPACKED = PROJECT / ".monitoring" / "usr" / "bin"
WEBHOOK_VARIABLE = "VLM_ALERTMANAGER_WEBHOOK"
COMMITTED_WEBHOOK, RECEIVERS = "http://127.0.0.1:9095/alerts", "    webhook_configs:"
KEPT = "15d"
READY = "/-/ready"


def monitoring() -> int:
    """Start all, print where they are, stop them together at Ctrl-C (0) or when one dies (raises)."""
    heed_signals()
    ports, home = read_monitoring_ports(os.environ), open_home(os.environ)
    folder = write_configuration(home, ports, os.environ.get(WEBHOOK_VARIABLE, ""))
    services = monitoring_services({**quiet_environment(), "DAGSTER_HOME": str(home)}, folder, ports)
    with Supervisor() as supervisor:
        try:
            for service in services:
                supervisor.start(service)
            supervisor.wait_ready(services)
            print(_table(ports), flush=True)
            supervisor.watch()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
    return 0


def write_configuration(home: Path, ports: MonitoringPorts, webhook: str) -> Path:
    """Copy deploy/prometheus/ into the home, with its ports and paths and the webhook (mode 0600); returns the copy."""
    folder = home / "monitoring"
    folder.mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(DEPLOY / "alerts.yml", folder / "alerts.yml")
    scraping = (DEPLOY / "prometheus.yml").read_text().replace("VLM_HOME", str(home))
    for default, port in ((8000, ports.serve), (9188, ports.metrics), (9100, ports.node), (9093, ports.alertmanager)):
        scraping = scraping.replace(f'"{HOST}:{default}"', f'"{HOST}:{port}"')
    (folder / "prometheus.yml").write_text(scraping)
    alerting = (DEPLOY / "alertmanager.yml").read_text()
    secret = folder / "alertmanager.yml"
    secret.touch(mode=0o600)
    # without a webhook alerts are shown and go nowhere
    secret.write_text(alerting.replace(COMMITTED_WEBHOOK, webhook) if webhook else alerting.split(RECEIVERS)[0])
    return folder


def monitoring_services(environment: Mapping[str, str], folder: Path, ports: MonitoringPorts) -> list[Service]:
    """How each is started: on loopback, its data beside its configuration. ConfigError if a program is missing."""
    prometheus, alertmanager = find_program("prometheus"), find_program("prometheus-alertmanager")
    own = [sys.executable, "-m", "vlm_assets", "metrics", "--port", str(ports.metrics)]
    scraper = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--storage.tsdb.retention.time={KEPT}",
        f"--web.listen-address={HOST}:{ports.prometheus}",
    ]
    notifier = [
        alertmanager,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={HOST}:{ports.alertmanager}",
        "--cluster.listen-address=",  # one Alertmanager is no cluster; it would listen on all addresses
    ]
    node = [find_program("prometheus-node-exporter"), f"--web.listen-address={HOST}:{ports.node}"]
    logs = folder.parent / LOGS
    return [
        Service("metrics", own, environment, logs / "metrics.log", answers(ports.metrics, "/metrics")),
        Service("node exporter", node, environment, logs / "node-exporter.log", answers(ports.node, "/metrics")),
        Service("Alertmanager", notifier, environment, logs / "alertmanager.log", answers(ports.alertmanager, READY)),
        Service("Prometheus", scraper, environment, logs / "prometheus.log", answers(ports.prometheus, READY)),
    ]


def find_program(name: str) -> str:
    """Its path: unpacked by tools/install_monitoring.sh, or installed; ConfigError if it is neither."""
    found = shutil.which(name, path=str(UNPACKED)) or shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not here: run tools/install_monitoring.sh, or install it (Debian: apt install).")
    return found


def _table(ports: MonitoringPorts) -> str:
    rows = (
        ("Prometheus", f"http://{HOST}:{ports.prometheus}", "queries and alerts"),
        ("Alertmanager", f"http://{HOST}:{ports.alertmanager}", f"what is sent on ({WEBHOOK_VARIABLE})"),
        ("Dagster", f"http://{HOST}:{ports.metrics}/metrics", "runs, checks, drift, champion"),
    )
    return "\n".join(f"  {name:<12} {url:<30} {use}" for name, url, use in rows) + "\nCtrl-C stops all of them."
