"""The machine itself: installed versions, the settings in its environment, its GPU."""

import difflib
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from vlm_assets.doctor.finding import Finding, State, ok
from vlm_assets.errors import ConfigError
from vlm_assets.presets import PRESETS, preset_config

PROJECT = "vlm-captioning"
PYTHON = (3, 11)
VARIABLE = re.compile(r"\bVLM_[A-Z][A-Z_]*[A-Z]\b")
GPU_TIMEOUT_S = 20.0


def versions() -> Finding:
    """Python and every package that this project requires, against what it requires."""
    if sys.version_info[:2] != PYTHON:
        found = f"Python {sys.version.split()[0]}, required is {PYTHON[0]}.{PYTHON[1]}"
        return Finding(State.FAIL, "versions", found, "make setup PYTHON=/path/to/python3.11")
    wanted = [one for one in map(Requirement, metadata.requires(PROJECT) or []) if _applies(one)]
    wrong = [text for one in wanted if (text := _wrong(one))]
    if wrong:
        return Finding(State.FAIL, "versions", "; ".join(wrong), "make setup (or pip install -c constraints.txt -e .)")
    return ok("versions", f"Python {sys.version.split()[0]}, {len(wanted)} packages as required")


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def _wrong(requirement: Requirement) -> str:
    try:
        installed = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} {installed}, required is {requirement.specifier}"


def settings(environment: Mapping[str, str]) -> Finding:
    """Every VLM_ variable holds what it may hold, and is one that something reads."""
    given = sorted(name for name in environment if name.startswith("VLM_"))
    unknown = [_unknown(name) for name in given if name not in known_variables()]
    if wrong := _wrong_values(environment):
        return Finding(State.FAIL, "settings", " ".join(wrong + unknown), _SETTINGS_ADVICE)
    if unknown:
        return Finding(State.WARN, "settings", " ".join(unknown), _SETTINGS_ADVICE)
    return ok("settings", f"{len(given)} VLM_ variables set" if given else "all defaults")


_SETTINGS_ADVICE = "Correct or unset them; README lists all settings."


@cache
def known_variables() -> frozenset[str]:
    """The variables that the two packages and the presets name: a list beside them would be out of date some day."""
    root = Path(__file__).parents[2]
    files = [*root.glob("vlm_assets/**/*.py"), *root.glob("vlm_serving/**/*.py"), *PRESETS.glob("*.yaml")]
    return frozenset(name for file in files for name in VARIABLE.findall(file.read_text(encoding="utf-8")))


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, known_variables(), 1)
    return f"{name} is read by nothing{f' (meant: {near[0]}?)' if near else ''}."


def _wrong_values(environment: Mapping[str, str]) -> list[str]:
    from vlm_assets.monitoring.config import RetrainPolicy

    faults: list[str] = []
    if environment.get("VLM_TRACKER", "mlflow") not in ("", "mlflow", "wandb"):
        faults.append(f"VLM_TRACKER is {environment['VLM_TRACKER']!r}; it takes mlflow or wandb.")
    for read in (preset_config, RetrainPolicy.from_environment):
        try:
            read()
        except ConfigError as error:
            faults.append(str(error))
    return faults


def gpu() -> Finding:
    """The GPUs that the driver sees, and whether torch sees them too."""
    listed = _driver_lists() if shutil.which("nvidia-smi") else []
    import torch

    if not listed and not torch.cuda.is_available():
        return Finding(State.ABSENT, "GPU", f"none, everything runs on the CPU (torch {torch.__version__})")
    if not torch.cuda.is_available():
        found = f"the driver lists {'; '.join(listed)}, torch {torch.__version__} sees none"
        return Finding(State.FAIL, "GPU", found, "Install torch's CUDA build: pip install -c constraints.txt torch")
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return ok("GPU", f"{torch.cuda.device_count()} × {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")


def _driver_lists() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GPU_TIMEOUT_S)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
