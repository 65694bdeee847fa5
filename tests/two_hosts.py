"""Two hosts on one machine: network namespaces `a` and `b`, joined by one cable that can be cut. Needs root.

Each host has its own addresses, routes, name, /etc/hosts, /dev/shm and Ray directory; processors and all other disks
are shared, so that a store on a local path is one that both hosts mount. Everything lives in namespaces of the command
`ISOLATED`: when that ends, or is killed, the kernel takes down hosts, cable and processes.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ISOLATED = ["unshare", "--pid", "--fork", "--mount-proc", "--mount", "--net", "--kill-child"]
RAY_PORT = 6379
ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
CABLE = """
set -e
mkdir -p /run/netns && mount -t tmpfs none /run/netns
ip netns add a && ip netns add b
ip link add eth0 netns a type veth peer name eth0 netns b
"""
ENTER = """
set -e
hostname "host-$NAME"
mount --bind "$FOLDER/hosts" /etc/hosts
mount --bind "$FOLDER/shm-$NAME" /dev/shm
mount --bind "$FOLDER/ray-$NAME" "$FOLDER/ray"
exec "$@"
"""
AGAIN = 'while true; do "$@"; sleep 1; done'


@dataclass(frozen=True)
class Host:
    """One of the two, with its state below `folder`."""

    name: str
    folder: Path

    @property
    def address(self) -> str:
        """The host's address on the cable."""
        return ADDRESSES[self.name]

    def command(self, *command: str) -> list[str]:
        """The command, to be run on this host."""
        enter = ["ip", "netns", "exec", self.name, "unshare", "--mount", "--uts", "bash", "-c", ENTER, "enter"]
        return ["env", f"NAME={self.name}", f"FOLDER={self.folder}", *enter, *command]

    def ray(self, *options: str, cpus: int) -> "subprocess.Popen[bytes]":
        """`ray start --block` on this host, and again whenever it ends, as systemd or Kubernetes would: a node that was
        declared dead ends, and has to join anew.
        """
        shared = [
            *(f"--node-ip-address={self.address}", f"--num-cpus={cpus}", f"--temp-dir={self.folder / 'ray'}"),
            *("--object-store-memory=100000000", "--disable-usage-stats", "--block"),
        ]
        with (self.folder / f"ray-{self.name}.log").open("ab") as log:
            start = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *shared]
            return subprocess.Popen(self.command("bash", "-c", AGAIN, "again", *start), stdout=log, stderr=log)

    def plug(self, state: str) -> None:
        """Pull this host's end of the cable (`down`), or put it back (`up`)."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "eth0", state], check=True)

    def runs(self, process: Any) -> bool:
        """Whether the process (of psutil) is on this host."""
        try:
            return os.stat(f"/proc/{process.pid}/ns/net").st_ino == os.stat(f"/run/netns/{self.name}").st_ino
        except FileNotFoundError:
            return False


def make_hosts(folder: Path) -> tuple[Host, Host]:
    """Both, joined and up. To be called once, by a process that `ISOLATED` has started."""
    subprocess.run(["bash", "-c", CABLE], check=True)
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{ip} host-{n}\n" for n, ip in ADDRESSES.items()))
    (folder / "ray").mkdir()
    hosts = Host("a", folder), Host("b", folder)
    for host in hosts:
        (folder / f"ray-{host.name}").mkdir()
        (shm := folder / f"shm-{host.name}").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(shm)], check=True)
        subprocess.run(["ip", "-n", host.name, "address", "add", f"{host.address}/24", "dev", "eth0"], check=True)
        subprocess.run(["ip", "-n", host.name, "link", "set", "lo", "up"], check=True)
        host.plug("up")
    return hosts


def ended(processes: Iterable["subprocess.Popen[bytes]"]) -> None:
    """Kill what was started here, and wait."""
    for process in processes:
        process.kill()
        process.wait()


def until(what: str, holds: Any, limit_s: float) -> float:
    """Seconds until `holds()`; raises TimeoutError that says what did not come."""
    started_s = time.monotonic()
    while not holds():
        if time.monotonic() - started_s > limit_s:
            raise TimeoutError(f"{what}: not within {limit_s:.0f} s")
        time.sleep(0.25)
    return time.monotonic() - started_s
