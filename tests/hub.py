"""A Hugging Face hub in small: one public data set or model at one commit, on loopback, over the hub's own HTTP.

Only what the client asks for: the repository's description, its tree, and its files with ranges.
https://huggingface.co/docs/hub/api
"""

import hashlib
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.http_server import serving

COMMIT = "5f0d9f0cd7a9b5a3ae0f0b9b0c4b7a3a1f2e3d4c"


def run_hub(repo: str, folder: Path, kind: str = "datasets") -> AbstractContextManager[str]:
    """Serve the files of `folder` as the repository `repo`, of `kind` datasets or models; gives the endpoint."""
    return serving(_handler(repo, folder, kind))


def _handler(repo: str, folder: Path, kind: str) -> type[BaseHTTPRequestHandler]:
    files = {file.relative_to(folder).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(body)

        def _answer(self, body: bytes = b"") -> None:
            path = unquote(urlsplit(self.path).path)
            api, resolve = f"/api/{kind}/{repo}", f"/{repo}/resolve/"
            if kind != "models":
                resolve = f"/{kind}{resolve}"
            if path.startswith(resolve):
                revision, _, name = path.removeprefix(resolve).partition("/")
                return self._file(name) if revision in (COMMIT, "main") and name in files else self._missing("Entry")
            if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
                return self._json({"id": repo, "sha": COMMIT, "private": False, "tags": [], "siblings": _siblings()})
            if path.startswith(f"{api}/tree/"):
                below = path.removeprefix(f"{api}/tree/").partition("/")[2]
                return self._tree(below)
            if path.startswith(f"{api}/paths-info/"):
                wanted = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
                return self._json([entry for name in wanted for entry in _entries(name)])
            return self._missing("Revision" if path.startswith(f"{api}/revision/") else "Repo")

        def _tree(self, below: str) -> None:
            inside = [name for name in files if not below or name.startswith(f"{below}/")]
            if below and not inside:
                return self._missing("Entry")
            recursive = "recursive=true" in self.path.lower()
            start = len(below) + 1 if below else 0
            names = {name if recursive else name[:start] + name[start:].partition("/")[0] for name in inside}
            if recursive:
                names |= {name[: len(name) - len(name.rpartition("/")[2]) - 1] for name in inside if "/" in name}
            return self._json([entry for name in sorted(names) for entry in _entries(name)])

        def _file(self, name: str) -> None:
            data = files[name].read_bytes()
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            self._send(206 if "Range" in self.headers else 200, part, headers)

        def _json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", "X-Repo-Commit": COMMIT})

        def _missing(self, what: str) -> None:
            self._send(404, b"{}", {"X-Error-Code": f"{what}NotFound", "X-Error-Message": f"{what} not found"})

        def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    def _siblings() -> list[dict[str, str]]:
        return [{"rfilename": name} for name in files]

    def _entries(name: str) -> list[dict[str, Any]]:
        if name in files:
            data = files[name].read_bytes()
            return [{"type": "file", "path": name, "size": len(data), "oid": _oid(data)}]
        if any(file.startswith(f"{name}/") for file in files):
            return [{"type": "directory", "path": name, "size": 0, "oid": _oid(name.encode())}]
        return []

    return Handler


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
