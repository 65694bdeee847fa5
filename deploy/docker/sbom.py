"""`python sbom.py FILE`: what this image holds, Python and Debian packages, as a CycloneDX 1.6 document.

Read from what is installed, not from what was asked for. The same image gives the same document: no time, no serial.
"""

import json
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DPKG_STATUS = Path("/var/lib/dpkg/status")
NAME_CHARS = 60  # a longer "License" field is the licence's text, not its name


def python_packages() -> Iterator[dict[str, Any]]:
    """Every distribution of this interpreter, each once."""
    for package in sorted(distributions(), key=lambda one: one.name.lower()):
        component = _component(package.name, package.version, f"pkg:pypi/{package.name.lower().replace('_', '-')}")
        licence = _licence(package)
        yield {**component, "licenses": [{"license": {"name": licence}}]} if licence else component


def debian_packages(status: str) -> Iterator[dict[str, Any]]:
    """Every installed package in the text of dpkg's status file."""
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            yield _component(fields["Package"], fields["Version"], f"pkg:deb/debian/{fields['Package']}")


def document() -> dict[str, Any]:
    """The whole document."""
    debian = debian_packages(DPKG_STATUS.read_text()) if DPKG_STATUS.is_file() else iter(())
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [*python_packages(), *debian]}


def _component(name: str, version: str, address: str) -> dict[str, Any]:
    purl = f"{address}@{version.replace('+', '%2B')}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _licence(package: Distribution) -> str:
    metadata = package.metadata
    named = metadata.get("License-Expression") or metadata.get("License") or ""
    if named and len(named) <= NAME_CHARS and "\n" not in named:
        return named
    classified = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    return ", ".join(classified)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(document(), indent=1) + "\n")
