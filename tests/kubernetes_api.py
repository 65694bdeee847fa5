"""As much of a Kubernetes API server and of KubeRay as a training needs: TLS, an account, RayJobs that really run.

A RayJob that is created runs its entrypoint as a process of this machine, with the variables of its runtime
environment, as KubeRay's submitter does on the head; its end is written into the status in KubeRay's words.
"""

import datetime
import ipaddress
import json
import os
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "the-token-of-the-pod"


@dataclass
class Cluster:
    """The RayJobs there are, what was asked, and who checks what is created."""

    environment: Mapping[str, str]
    check: Callable[[dict[str, Any]], list[str]] = lambda job: []
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def create(self, job: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = job["metadata"]["name"]
        if name in self.jobs:
            return 409, {"message": f'rayjobs.ray.io "{name}" already exists'}
        if told := self.check(job):
            return 422, {"message": "; ".join(told)}
        variables = yaml.safe_load(job["spec"]["runtimeEnvYAML"])["env_vars"]
        command = [sys.executable, *shlex.split(job["spec"]["entrypoint"])[1:]]
        self.processes[name] = subprocess.Popen(command, env={**self.environment, **variables})
        self.jobs[name] = job
        return 201, job

    def read(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return 404, {"message": f'rayjobs.ray.io "{name}" not found'}
        code = self.processes[name].poll() if name in self.processes else None
        status = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
        if code is not None:
            status = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"} if code == 0 else {
                "jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed",
                "message": f"Job entrypoint command failed with exit code {code}",
            }  # fmt: skip
        return 200, {**self.jobs[name], "status": status}

    def delete(self, name: str) -> tuple[int, dict[str, Any]]:
        if name not in self.jobs:
            return self.read(name)
        del self.jobs[name]
        if process := self.processes.pop(name, None):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return 200, {"status": "Success"}


@contextmanager
def kubernetes(folder: Path, cluster: Cluster) -> Iterator[Path]:
    """Serve on a free loopback port; yields the directory of the pod's account (token, CA, namespace)."""
    certificate, key = _certificate(folder)
    account = folder / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("captions")
    (account / "ca.crt").write_bytes(certificate.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def handle_one(self) -> None:
            cluster.asked.append(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                return self.answer(401, {"message": "Unauthorized"})
            if not self.path.startswith("/apis/ray.io/v1/namespaces/captions/rayjobs"):
                return self.answer(403, {"message": "forbidden"})
            name = self.path.rpartition("/rayjobs")[2].strip("/")
            if self.command == "POST":
                return self.answer(*cluster.create(json.loads(body)))
            return self.answer(*(cluster.delete(name) if self.command == "DELETE" else cluster.read(name)))

        do_GET = do_POST = do_DELETE = handle_one

        def log_message(self, format: str, *arguments: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    cluster.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield account
    finally:
        for name in list(cluster.jobs):
            cluster.delete(name)
        server.shutdown()
        server.server_close()
        thread.join()


def _certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1, signed by itself, for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    os.chmod(files[1], 0o600)
    return files
