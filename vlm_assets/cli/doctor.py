"""`make doctor`: everything a deployment stands on, looked at once, with what to mend."""

import os
from collections.abc import Mapping
from functools import partial

from vlm_assets.cli.settings import PORTS
from vlm_assets.doctor import machine, ports, servers, state
from vlm_assets.doctor.finding import Finding, State, examine, table
from vlm_assets.release.ledger import Ledger, LedgerEntry
from vlm_assets.resources import StoreResource, home


def doctor() -> int:
    """Print the table; 1 if anything failed, 0 otherwise."""
    findings = all_findings(os.environ)
    print(table(findings))
    return 1 if any(finding.state is State.FAIL for finding in findings) else 0


def all_findings(environment: Mapping[str, str]) -> list[Finding]:
    """Every check once, from the machine up to the captions it serves."""
    held = [
        examine(f"port {setting.variable[9:].lower()}", partial(ports.port, setting, environment)) for setting in PORTS
    ]
    entry = _champion()
    return [
        examine("versions", machine.versions),
        examine("settings", partial(machine.settings, environment)),
        examine("home", partial(state.home, environment)),
        examine("store", state.store),
        examine("database", state.database),
        examine("daemon", state.daemon),
        *held,
        examine("MLflow", partial(servers.mlflow, environment, home())),
        examine("champion", state.champion),
        *servers.serving(environment, entry.bundle_version if entry else ""),
        examine("cluster", partial(servers.ray_cluster, environment)),
        examine("GPU", machine.gpu),
        examine("clock", partial(servers.clock, environment, entry.time_unix_s if entry else 0.0)),
    ]


def _champion() -> LedgerEntry | None:
    """The champion, if the ledger can be read: `state.champion` tells what is wrong if not."""
    try:
        return Ledger(StoreResource().open()).champion()
    except Exception:
        return None
