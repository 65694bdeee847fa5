"""Who may ask, and how often: API keys, a rate for each, and the headers that every answer carries.

Keys are kept as hashes. They are long random strings, so a plain SHA-256 cannot be turned back (a salt is for what
people choose themselves). All is decided before a byte of the body is read.
"""

import hashlib
import hmac
import math
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_serving.config import ServingConfig
from vlm_serving.errors import RateLimitedError, ServingError, SettingsError, UnauthorizedError
from vlm_serving.problems import problem_of

KEY_PREFIX = "vlm_"
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
HASH = re.compile(r"[0-9a-f]{64}")
ANONYMOUS = "anonymous"
ALWAYS_OPEN = {"/healthz", "/readyz"}  # probes carry no keys
PAGES = {"/", "/docs", "/openapi.json"}  # a browser asks for a page before a person can give it a key
SAFE_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def new_key() -> tuple[str, str]:
    """A key and its hash."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, hash_of(key)


def hash_of(key: str) -> str:
    """As it stands in the settings."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_line(name: str, digest: str) -> str:
    """A line of the file of keys; raises SettingsError for a name that cannot stand there."""
    if faults := _faults({name: digest}):
        raise SettingsError("; ".join(faults) + ".")
    return f"{name} {digest}"


def read_keys(config: ServingConfig) -> dict[str, str]:
    """Hashes by name, of the settings and of their file (`NAME HASH` a line, `#` for remarks).

    Raises SettingsError with all faults at once; it names lines and keys' names, never what they hold.
    """
    keys, faults = dict(config.api_keys), [f"api_keys: {fault}" for fault in _faults(config.api_keys)]
    if file := config.api_keys_file or os.environ.get("VLM_API_KEYS_FILE", ""):
        path = Path(file)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"The file of API keys {path} cannot be read ({error}). Check api_keys_file.") from None
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if words and (len(words) != 2 or _faults({words[0]: words[1]})):
                faults.append(f"{path}, line {number}: not `NAME HASH`, as `python -m vlm_serving new-key NAME` prints")
            elif words and words[0] in keys:
                faults.append(f"{path}, line {number}: there is a key {words[0]!r} already")
            elif words:
                keys[words[0]] = words[1]
    if faults:
        raise SettingsError("API keys:\n" + "\n".join(faults))
    return keys


def _faults(keys: Mapping[str, str]) -> list[str]:
    faults = [f"the name {name!r} is not 1 to 64 letters, digits, '.', '_', '-'" for name in keys
              if not NAME.fullmatch(name) or name == ANONYMOUS]  # fmt: skip
    return faults + [f"{name!r} is no SHA-256 in hex; give the hash, not the key" for name, one in keys.items()
                     if not HASH.fullmatch(one)]  # fmt: skip


@dataclass
class Bucket:
    """A token bucket: `rate` a second on average, `burst` at once (Turner 1986, "New directions in communications")."""

    rate: float
    burst: float
    clock: Callable[[], float] = time.monotonic
    left: float = field(init=False)
    seen_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.seen_s = self.burst, self.clock()

    def take(self) -> float:
        """Take one; returns 0, or the seconds until there is one."""
        now_s = self.clock()
        self.left = min(self.burst, self.left + (now_s - self.seen_s) * self.rate)
        self.seen_s = now_s
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) / self.rate


class Doorkeeper:
    """Decides on a request by its path and headers. Of one replica: each counts for itself."""

    def __init__(self, config: ServingConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._keys = read_keys(config)
        self._buckets: dict[str, Bucket] = {}

    def admit(self, path: str, headers: Mapping[str, str]) -> str:
        """The caller's name. Raises UnauthorizedError, RateLimitedError."""
        if path in ALWAYS_OPEN or path in PAGES or (path == "/metrics" and self._config.open_metrics):
            return ANONYMOUS
        caller = self._caller(headers)
        self._pace(caller)
        return caller

    def _caller(self, headers: Mapping[str, str]) -> str:
        given = given_key(headers)
        if not given:
            if self._config.anonymous == "allow" or (self._config.anonymous == "auto" and not self._keys):
                return ANONYMOUS
            raise UnauthorizedError("The request has no API key. Send `Authorization: Bearer KEY` or `x-api-key: KEY`.")
        digest, found = hash_of(given), ""
        for name, one in self._keys.items():  # all of them, whichever it is: the time must not tell
            found = name if hmac.compare_digest(one, digest) else found
        if not found and self._keys:
            raise UnauthorizedError("The API key is not known here. Check it, or ask for a new one.")
        return found or ANONYMOUS  # where nobody needs a key, one that is sent does no harm

    def _pace(self, caller: str) -> None:
        per_minute = self._config.requests_per_minute
        if not per_minute:
            return
        if caller not in self._buckets:
            burst = max(1.0, self._config.request_burst or per_minute / 6)
            self._buckets[caller] = Bucket(per_minute / 60, burst, self._clock)
        wait_s = self._buckets[caller].take()
        if wait_s:
            error = RateLimitedError(
                f"{caller} may send {per_minute:g} requests a minute to a replica. Try again in {math.ceil(wait_s)} s."
            )
            error.retry_after_s = math.ceil(wait_s)  # pyright: ignore[reportAttributeAccessIssue]
            raise error


def given_key(headers: Mapping[str, str]) -> str:
    """The key that a request carries, or nothing."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()


class Guard:
    """ASGI: lets in whom the doorkeeper admits, and puts the safe headers on every answer.

    `config_of` is asked at the first request: the application is built before its settings are there.
    """

    def __init__(self, app: ASGIApp, config_of: Callable[[], ServingConfig]) -> None:
        self._app, self._config_of = app, config_of
        self._inner: ASGIApp | None = None
        self._doorkeeper: Doorkeeper | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if self._doorkeeper is None:
            config = self._config_of()
            self._doorkeeper, self._inner = Doorkeeper(config), with_cors(self._app, config)
        inner = self._inner or self._app
        state: dict[str, Any] = scope.setdefault("state", {})
        safely = _with_safe_headers(send)
        try:
            if scope["method"] != "OPTIONS":  # a browser's question whether it may ask carries no key
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                state["caller"] = self._doorkeeper.admit(scope["path"], headers)
        except ServingError as error:
            state["reason"] = error.slug
            answer = problem_of(error, state.get("request_id", ""))
            if isinstance(error, UnauthorizedError):
                answer.headers["www-authenticate"] = "Bearer"
            inner = with_cors(answer, self._config_of())  # a listed page may read why it was refused
        await inner(scope, receive, safely)


def with_cors(app: ASGIApp, config: ServingConfig) -> ASGIApp:
    """`app` for pages of the listed origins; by default for none but its own."""
    if not config.cors_origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=config.cors_origins,
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type", "x-api-key", "x-request-id", "x-request-timeout-s"],
        expose_headers=["x-request-id", "x-model-version", "retry-after"],
    )


def _with_safe_headers(send: Send) -> Send:
    async def safely(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            more = [
                (name.encode(), value.encode()) for name, value in SAFE_HEADERS.items() if name.encode() not in present
            ]
            message["headers"] = [*message["headers"], *more]
        await send(message)

    return safely
