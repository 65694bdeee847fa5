#!/usr/bin/env python3
"""The part of CHANGELOG.md that belongs to a version, for the page of its release: release_notes.py v1.2.3.

Refuses a tag that is not the version in pyproject.toml, and a version that nobody described.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(tag: str, changelog: str, project_version: str) -> str:
    """The text below `## X.Y.Z` up to the next version. Exits with one line if there is none, or the tag is wrong."""
    version = tag.removeprefix("v")
    if version != project_version:
        raise SystemExit(f"The tag is {tag!r}, pyproject.toml says {project_version}: one of the two is wrong.")
    found = re.search(rf"^## {re.escape(version)}\b[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md says nothing of {version}: rename 'Unreleased' to '{version} (DATE)'.")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    print(notes(sys.argv[1] if len(sys.argv) > 1 else "", (ROOT / "CHANGELOG.md").read_text(), version), end="")
