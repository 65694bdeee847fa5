"""A real PostgreSQL for tests: Debian's, started by hand as an unprivileged user on loopback, gone afterwards."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_assets.children import end_with_parent
from vlm_serving.processes import free_port

HOST, USER, DATABASE, PASSWORD = "127.0.0.1", "dagster", "dagster", "kept-in-a-test-4Vr8"
START_TIMEOUT_SECONDS = 60
QUICK = ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=16MB"]


@dataclass(frozen=True)
class Postgres:
    """A running server with one database."""

    port: int

    def environment(self) -> dict[str, str]:
        """The variables that deploy/docker/dagster.yaml reads."""
        return {
            "DAGSTER_PG_HOST": HOST,
            "DAGSTER_PG_PORT": str(self.port),
            "DAGSTER_PG_DB": DATABASE,
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }

    def query(self, sql: str, database: str = DATABASE) -> list[tuple[Any, ...]]:
        """The rows of a question; none of a statement."""
        import psycopg2

        connection = psycopg2.connect(host=HOST, port=self.port, user=USER, password=PASSWORD, dbname=database)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()


def binaries() -> Path | None:
    """Where the newest PostgreSQL of this machine lies; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def run_postgres() -> Iterator[Postgres]:
    """Start the server in a directory of its own; it asks for the password, as a deployment's does."""
    found = binaries()
    assert found is not None
    folder = Path(tempfile.mkdtemp(prefix="vlm-pg-", dir="/tmp"))
    (secret := folder / "secret").write_text(PASSWORD)
    account = _unprivileged()
    if account:
        for path in (folder, secret):
            os.chown(path, account["user"], account["group"])
    port, data = free_port(), folder / "data"
    initdb = [found / "initdb", "-D", data, "-U", USER, f"--pwfile={secret}", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", extra_groups=[] if account else None, **account)
    settings = ["-D", data, "-p", str(port), "-k", folder, "-c", f"listen_addresses={HOST}", *QUICK]
    server = subprocess.Popen(
        [found / "postgres", *settings], stdout=subprocess.DEVNULL, stderr=(folder / "log").open("wb"), cwd="/",
        extra_groups=[] if account else None, preexec_fn=end_with_parent, **account,
    )  # fmt: skip
    try:
        postgres = Postgres(port)
        _wait(postgres, server, folder / "log")
        postgres.query(f"CREATE DATABASE {DATABASE}", "postgres")
        yield postgres
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> Mapping[str, Any]:
    """Whom to run it as: PostgreSQL refuses root."""
    if os.getuid():
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid}


def _wait(postgres: Postgres, server: "subprocess.Popen[Any]", log: Path) -> None:
    deadline_s, last = time.monotonic() + START_TIMEOUT_SECONDS, ""
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            postgres.query("SELECT 1", "postgres")
            return
        except Exception as error:
            last = str(error)
            time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not come up ({last}):\n{log.read_text()[-2000:]}")
