"""Download of a medium over http or https: bounded in bytes, seconds and redirects.

Each hop (the URL, and at most ``MAX_REDIRECTS`` more) is resolved once, its addresses are checked, and the
connection goes to an address that was checked: a name that changes its mind in between changes nothing.
Only the host that the user's own URL names may have an address that is not public. Proxies are not used.
"""

from __future__ import annotations

import base64
import errno
import http.client
import ipaddress
import socket
import threading
import time
from contextlib import suppress
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from vidllava.errors import MediaError, ResourceError
from vidllava.media.files import shown_url

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16
_PORTS = {"http": 80, "https": 443}
# Prefixes under which an IPv6 address stands for an IPv4 one (RFC 6052, and the old "compatible" form).
_EMBEDDING = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
# Ranges that some Python versions do not know: protocol assignments (RFC 6890), local NAT64 (RFC 8215),
# documentation (RFC 9637).
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20")))


def fetch(url: str, target: BinaryIO, *, max_bytes: int, seconds: float) -> None:
    """Copy the body of ``url`` into ``target``.

    Raises MediaError where the server cannot be reached, refuses, or leads to an address that is not public;
    ResourceError beyond ``max_bytes`` or ``seconds`` (from the first look-up to the last byte).
    """
    name, end = shown_url(url), time.monotonic() + seconds
    own_host = _host(_split(url, name))
    try:
        for _ in range(MAX_REDIRECTS + 1):
            next_url = _hop(url, name, own_host, target, max_bytes, end)
            if next_url is None:
                return
            url = next_url
    except (OSError, http.client.HTTPException, ValueError) as fault:
        if time.monotonic() >= end:
            what = f"was not fetched within the limit of {seconds:g} s"
            raise ResourceError(name, what, "raise --url-timeout, or download it first") from None
        if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        if type(fault).__name__ == "SSLCertVerificationError":  # by name: ssl is imported for https alone
            what = (
                f"cannot be fetched: its certificate is not valid: {getattr(fault, 'verify_message', fault)}"
            )
            hint = "download it first, if the server is to be trusted"
            raise MediaError(name, what, hint) from None
        reason = getattr(fault, "strerror", None) or type(fault).__name__
        reason = "no valid address" if isinstance(fault, ValueError) else reason
        raise MediaError(name, f"cannot be fetched: {reason}", "check the address") from None
    raise MediaError(name, f"redirects more than {MAX_REDIRECTS} times", "give the final address")


def _hop(url: str, name: str, own_host: str, target: BinaryIO, max_bytes: int, end: float) -> str | None:
    """Ask one address; its answer is copied, or is the next address. Raises OSError and HTTPException."""
    parts = _split(url, name)
    connection = _connect(parts, name, own_host, end)
    raw = connection.sock
    # A server that sends a byte now and then never meets a socket's own timeout: hang up on it.
    clock = threading.Timer(max(end - time.monotonic(), 0), _hang_up, (raw,))
    clock.daemon = True
    clock.start()
    try:
        connection.request("GET", _target(parts), headers=_headers(parts, own_host))
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and response.headers.get("Location"):
                return urljoin(url, response.headers["Location"])
            if response.status != http.client.OK:
                what = f"cannot be fetched: the server answered {response.status} {response.reason}"
                raise MediaError(name, what, "check the address")
            _copy(response, name, target, max_bytes)
        if time.monotonic() >= end:  # an end of file that we made ourselves
            raise TimeoutError
        return None
    finally:
        clock.cancel()
        connection.close()
        raw.close()


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise MediaError(name, "is not a valid address", "for example https://example.org/clip.mp4") from None
    if not known:
        what = f"leads to {shown_url(url)!r}: only http and https are followed"
        raise MediaError(name, what, "download it first")
    return parts


def _host(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").casefold()


def _connect(parts: SplitResult, name: str, own_host: str, end: float) -> http.client.HTTPConnection:
    host = _host(parts)
    port = parts.port or _PORTS[parts.scheme]
    addresses = _resolve(host, port, end)
    if host != own_host:
        addresses = [address for address in addresses if is_public(address)]
        if not addresses:
            raise MediaError(
                name, f"redirects to {host}, which is not a public address", "give that address itself"
            )
    fault: OSError = OSError("no address")
    for address in addresses:
        try:
            plain = socket.create_connection((address, port), timeout=max(end - time.monotonic(), 1e-3))
        except OSError as error:
            fault = error
            continue
        # The socket is there already: http.client only speaks over it, and never looks a name up.
        if parts.scheme == "http":
            connection = http.client.HTTPConnection(host, port)
            connection.sock = plain
            return connection
        import ssl

        connection = http.client.HTTPSConnection(host, port)
        try:
            connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        return connection
    raise fault


def _resolve(host: str, port: int, end: float) -> list[str]:
    """The addresses of a host, in the resolver's order. Raises OSError, also where it takes too long."""
    found: list[str] = []
    faults: list[OSError] = []

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host.encode("idna"), port, type=socket.SOCK_STREAM)
            found.extend(str(address[0]) for *_, address in answers)
        except (OSError, UnicodeError) as fault:
            faults.append(fault if isinstance(fault, OSError) else OSError("no valid name"))

    # The resolver has no time limit of its own that a caller could set.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(max(end - time.monotonic(), 0))
    if faults:
        raise faults[0]
    if not found:
        raise TimeoutError("name look-up")
    return list(dict.fromkeys(found))


def is_public(address: str) -> bool:
    """Whether an address is one of the open network: not private, loopback, link-local or reserved."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if any(ip in network for network in _EMBEDDING):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    if any(ip in network for network in _NOT_PUBLIC if network.version == ip.version):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _target(parts: SplitResult) -> str:
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return path + ("?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]") if parts.query else "")


def _headers(parts: SplitResult, own_host: str) -> dict[str, str]:
    headers = {"User-Agent": "vidllava", "Accept-Encoding": "identity", "Connection": "close"}
    if parts.username is not None and _host(parts) == own_host:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    return headers


def _copy(response: http.client.HTTPResponse, name: str, target: BinaryIO, max_bytes: int) -> None:
    promised = response.length
    done = 0
    while True:
        if max(done, promised or 0) > max_bytes:
            what = f"has {max(done, promised or 0):,} bytes or more, over the limit of {max_bytes:,}"
            raise ResourceError(name, what, "raise --max-file-size")
        chunk = response.read1(_CHUNK_BYTES)
        if not chunk:
            break
        done += len(chunk)
        target.write(chunk)
    if promised is not None and done < promised:
        raise ConnectionError(0, f"the connection ended after {done:,} of {promised:,} bytes")


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
