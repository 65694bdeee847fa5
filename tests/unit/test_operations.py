"""docs/operations.md at three in the morning: every alert has its place, and every command in it exists."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_assets.cli.bootstrap import prepare_instance
from vlm_assets.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
RULE_FILES = sorted((ROOT / "deploy" / "prometheus").glob("*.yml"))
ALERTS: list[dict[str, Any]] = [
    rule
    for file in RULE_FILES
    for group in (yaml.safe_load(file.read_text()) or {}).get("groups", [])
    for rule in group["rules"]
    if "alert" in rule
]


def section(heading: str) -> str:
    found = re.search(rf"^### {heading}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.skipif(not ALERTS, reason="deploy/prometheus has no rules yet")
def test_every_alert_says_what_it_means_and_what_to_type():
    for alert in ALERTS:
        text = section(alert["alert"])
        assert "**Means**" in text and "**Type**" in text, alert["alert"]
        assert alert["annotations"]["runbook_url"].endswith(f"docs/operations.md#{alert['alert'].lower()}")
    written = set(re.findall(r"^### (\w+)$", PAGE, re.MULTILINE))
    assert written == {alert["alert"] for alert in ALERTS}, "a heading without an alert, or the other way round"


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(re.findall(r"`([^`\n]+)`", PAGE) + re.findall(r"^```(?:bash)?\n(.*?)^```", PAGE, re.M | re.S))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code))
    assert {"doctor", "up", "airflow-test"} <= named <= targets


def test_every_command_of_ours_exists(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    known = set(re.search(r"\{([a-z,-]+)\}", capsys.readouterr().out)[1].split(","))  # pyright: ignore
    named = set(re.findall(r"python -m vlm_assets ([a-z-]+)", PAGE))
    assert named <= known


def test_every_link_leads_somewhere():
    headings = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+)$", PAGE, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        file, _, anchor = target.partition("#")
        assert (ROOT / "docs" / file).exists() if file else anchor in headings, target


@pytest.mark.integration
def test_marked_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"^<!-- run -->\n```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    prepare_instance(tmp_path)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "PATH": f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
    }
    for block in blocks:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
