"""Environments of their own for servers that must not enter ours; torch, transformers, Pillow they borrow from ours."""

import hashlib
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent  # NAME.txt: exact versions of the rival and of all that it brings


def environment_of(rival: str, folder: Path) -> Path:
    """The `bin` directory of the rival's environment below `folder`; made at the first call, some 20 s.

    Its own packages come first; what it lacks it finds in the environment that runs this: the same torch for all.
    """
    pins = HERE / f"{rival}.txt"
    place = folder.absolute() / rival
    made = place / f".installed-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    if not made.exists():
        print(f"installing {rival} into {place}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pins)])
        library = next((place / "lib").glob("python3.*")) / "site-packages"
        (library / "zz-borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        made.touch()
    return place / "bin"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
