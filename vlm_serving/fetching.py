"""Pictures by URL, fetched so that a caller cannot make this server look into the network that it stands in.

Off unless hosts are listed. The address is looked up once, checked, and connected to as it was checked (a second lookup
could say otherwise: DNS rebinding), every redirect anew; TLS still verifies the name. Bytes and time are bounded while
they pass. After OWASP's "Server-Side Request Forgery Prevention Cheat Sheet".
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx

from vlm_serving.errors import PictureTooLargeError, UrlFailedError, UrlRefusedError

REDIRECTS = (301, 302, 303, 307, 308)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last 32 bits
# Not of the open internet, though `is_global` calls them so: IPv4-compatible and site-local addresses (both given up),
# NAT64 of local use (RFC 8215), segment routing (RFC 9602), documentation (RFC 9637)
NOT_PUBLIC = [ipaddress.ip_network(one) for one in ("::/96", "fec0::/10", "64:ff9b:1::/48", "5f00::/16", "3fff::/20")]
DEFAULT_PORTS = {"https": 443, "http": 80}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True)
class FetchRules:
    """What may be fetched. A host is a name, or `*.name` for all below it; private networks only those listed."""

    hosts: tuple[str, ...] = ()
    plain_http: bool = False
    ports: tuple[int, ...] = (443,)
    private_networks: tuple[str, ...] = ()
    max_bytes: int = 20 * 1024 * 1024
    timeout_s: float = 10.0
    max_redirects: int = 3


async def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system's resolver has them."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def fetch(url: str, rules: FetchRules, resolve: Resolve = resolve) -> bytes:
    """The bytes at a URL; their kind is for the picture decoder to say.

    Raises UrlRefusedError (not allowed), UrlFailedError (the other side), PictureTooLargeError.
    """
    try:
        async with asyncio.timeout(rules.timeout_s):
            for _ in range(rules.max_redirects + 1):
                answer = await _get(url, rules, resolve)
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
    except TimeoutError:
        raise UrlFailedError(
            f"{_shown(url)} took longer than {rules.timeout_s:g} s. Send the picture itself."
        ) from None
    raise UrlRefusedError(f"{_shown(url)} redirects more than {rules.max_redirects} times. Send the last address.")


async def _get(url: str, rules: FetchRules, resolve: Resolve) -> bytes | str:
    """The bytes, or where it redirects to."""
    parts = checked(url, rules)
    host, port = str(parts.hostname), _port(parts)
    address = await _address(host, port, rules, resolve)
    literal = f"[{address}]" if address.version == 6 else str(address)
    target = parts._replace(netloc=f"{literal}:{port}", fragment="").geturl()
    # identity: what is not packed cannot unpack to more than was let in
    headers = {"host": parts.netloc, "accept": "image/*", "accept-encoding": "identity", "user-agent": "vlm-captioning"}
    try:
        async with (
            httpx.AsyncClient(timeout=rules.timeout_s, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", target, headers=headers, extensions={"sni_hostname": host}) as answer,
        ):
            if answer.status_code in REDIRECTS and "location" in answer.headers:
                return answer.headers["location"]
            if answer.status_code != 200:
                raise UrlFailedError(f"{_shown(url)} answered {answer.status_code}. Check the address.")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise UrlFailedError(f"{_shown(url)} sends packed bytes, which are not read. Send the picture itself.")
            return await _read(answer, url, rules.max_bytes)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        reason = type(error).__name__
        raise UrlFailedError(f"{_shown(url)} could not be fetched ({reason}). Check the address.") from error


async def _read(answer: httpx.Response, url: str, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    seen = int(answer.headers.get("content-length", "0"))  # as declared; what comes is counted anew
    if seen <= max_bytes:
        seen = 0
        async for piece in answer.aiter_raw():
            seen += len(piece)
            pieces.append(piece)
            if seen > max_bytes:
                break
    if seen > max_bytes:
        raise PictureTooLargeError(f"{_shown(url)} has more than {max_bytes:,} bytes, which is the limit. Send less.")
    return b"".join(pieces)


def checked(url: str, rules: FetchRules) -> SplitResult:
    """The parts of a URL that may be fetched; raises UrlRefusedError. Whether its address may, only a lookup tells."""
    if not rules.hosts:
        raise UrlRefusedError("Pictures by URL are off here. Send the picture itself, in base64 or as a file.")
    try:
        url.encode()  # JSON can hold half a surrogate pair, which no URL can
        parts = urlsplit(url)
        host, port = (parts.hostname or "").rstrip("."), _port(parts)
    except ValueError as error:
        raise UrlRefusedError(f"{_shown(url)} is no URL ({error}).") from error
    schemes = ("https", "http") if rules.plain_http else ("https",)
    if parts.scheme not in schemes:
        raise UrlRefusedError(f"{_shown(url)}: only {' and '.join(schemes)} URLs are fetched.")
    if parts.username is not None or parts.password is not None:
        raise UrlRefusedError("The URL holds a user or password, which is not sent. Leave it out.")
    if not any(_matches(host, pattern) for pattern in rules.hosts):
        raise UrlRefusedError(f"The host {host[:80]!r} is not among those that pictures are fetched from.")
    if not host.isascii() or not all(1 <= len(label) <= 63 for label in host.split(".")):  # RFC 1035
        raise UrlRefusedError(f"The host {host[:80]!r} is no name of a host. Write it in ASCII (xn--…).")
    if port not in rules.ports:
        raise UrlRefusedError(f"Port {port} is not among those that pictures are fetched from: {list(rules.ports)}.")
    return parts._replace(netloc=parts.netloc.lower())


async def _address(host: str, port: int, rules: FetchRules, resolve: Resolve) -> Address:
    """An address of the host; raises UrlRefusedError if any of them is not public: the next lookup may bring that."""
    try:
        addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in await resolve(host, port)]
    except OSError as error:
        raise UrlFailedError(f"The host {host!r} is not known. Check the address.") from error
    own = [ipaddress.ip_network(network) for network in rules.private_networks]
    for address in addresses:
        if not (is_public(address) or any(address in network for network in own)):
            raise UrlRefusedError(
                f"The host {host!r} has an address that is not public: nothing is fetched from there."
            )
    if not addresses:
        raise UrlFailedError(f"The host {host!r} has no address. Check it.")
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, also by way of the IPv4 address inside it."""
    inner: list[ipaddress.IPv4Address | None] = []
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        inner += [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)] if address in NAT64 else []
    if address.is_multicast or address.is_unspecified or any(address in network for network in NOT_PUBLIC):
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return is_public(address.ipv4_mapped)
    return address.is_global and all(is_public(one) for one in inner if one is not None)


def _matches(host: str, pattern: str) -> bool:
    host, pattern = host.lower(), pattern.lower()
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern


def _port(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def _shown(url: str) -> str:
    """A URL as errors name it: without query, which may be a signature, and not at any length."""
    return repr(url.partition("?")[0].partition("#")[0][:120])
