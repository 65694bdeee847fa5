"""git and DVC as the commands that people have.

DVC's own dependencies do not fit beside Dagster's (its hydra asks for an antlr with which Dagster's selections fail),
so DVC lives in an environment of its own.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

from vlm_assets.errors import RegistryError

DVC_ENV = "VLM_DVC"
OWN_DVC = Path(__file__).resolve().parents[2] / ".venv-dvc" / "bin" / "dvc"  # made by `make dvc`
REFUSED = ("403", "Forbidden", "AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "locate credentials")
UNREACHABLE = ("Could not connect", "Connect timeout", "Name or service not known", "Cannot connect")
NO_BUCKET = ("NoSuchBucket", "bucket does not exist")
SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSWORD")


def find_dvc() -> str:
    """The DVC command: VLM_DVC, the one of `make dvc`, the one on PATH; "" if there is none."""
    named = os.environ.get(DVC_ENV)
    candidates = [named] if named else [str(OWN_DVC), "dvc"]
    return next((found for name in candidates if (found := shutil.which(name))), "")


def no_dvc() -> str:
    """What to do without DVC."""
    tried = os.environ.get(DVC_ENV) or f"{OWN_DVC} and dvc on PATH"
    return (
        f"The command DVC was not found (tried {tried}). Install it with `make dvc`, or into an environment of its "
        f"own: pip install 'dvc[s3]'; {DVC_ENV} names the command."
    )


def run_git(root: Path, *arguments: str, check: bool = True) -> str:
    """git's output in the repository at `root`. RegistryError if it fails; without `check` that is an empty answer."""
    done = _run(["git", "-C", str(root), *arguments], root, _environment_without("GIT_DIR", "GIT_INDEX", "GIT_WORK"))
    if check and done.returncode:
        raise RegistryError(
            f"git {arguments[0]} failed in {root}: {_last_line(done.stderr or done.stdout)}. "
            "Nothing is lost: the artifact is in the store. Repair the repository and materialize again."
        )
    return done.stdout if done.returncode == 0 else ""


def run_dvc(dvc: str, root: Path, *arguments: str, check: bool = True, remote: str = "") -> str:
    """DVC's output in the repository at `root`. RegistryError if it fails; `remote` is the URL that it is about."""
    environment = {**_environment_without("PYTHON", "GIT_DIR", "GIT_INDEX", "GIT_WORK"), "DVC_NO_ANALYTICS": "1"}
    done = _run([dvc, *arguments], root, environment)
    if check and done.returncode:
        raise RegistryError(_explain(arguments[0], done.stderr, remote, root))
    return done.stdout


def _environment_without(*prefixes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def _run(command: list[str], directory: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise RegistryError(f"The command {command[0]} was not found. Install it and materialize again.") from error


def _explain(action: str, output: str, remote: str, root: Path) -> str:
    """What DVC's output means, in one sentence with a way out."""
    detail = _last_line("\n".join(line for line in output.splitlines() if line.startswith("ERROR")) or output)
    where = remote or f"the remote of {root}"
    if any(word in output for word in REFUSED):
        happened = (
            f"{where} refuses the credentials: {detail}. Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or what `dvc remote modify --local` set."
        )
    elif any(word in output for word in NO_BUCKET):
        happened = f"{where} does not exist: {detail}. Create the bucket, or correct `dvc remote modify`."
    elif any(word in output for word in UNREACHABLE):
        happened = (
            f"{where} cannot be reached: {detail}. Check AWS_ENDPOINT_URL, the remote's endpointurl, the network."
        )
    else:
        happened = f"{detail}."
    if action == "get":
        return f"dvc get failed: {happened} Nothing was changed; materialize again."
    return (
        f"dvc {action} failed: {happened} Nothing is lost: the artifact is in the store, the registry's history is as "
        "it was; materialize again and it goes on from here."
    )


def _last_line(output: str) -> str:
    """The last line that says something, without the values of secret variables."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and "dvc.org/support" not in line]
    text = (
        lines[-1].removeprefix("ERROR: ").removeprefix("unexpected error - ").rstrip(".")
        if lines
        else "no reason given"
    )
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and value:
            text = text.replace(value, "***")
    return re.sub(r"(://)[^/@\s]+@", r"\1", text)
