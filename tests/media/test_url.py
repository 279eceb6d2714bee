"""Media from a URL or standard input: only where allowed, bounded, led nowhere else, and nothing is left."""

from __future__ import annotations

import io
import os
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vidllava.errors import MediaError, ResourceError, UsageError
from vidllava.media import url as url_module
from vidllava.media.limits import Limits
from vidllava.media.probe import probe
from vidllava.media.sources import Spool, shown_url
from vidllava.media.url import is_public


class Site:
    """A server on a loopback address: ``pages`` say what each path answers."""

    def __init__(self, address: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[str] = []
        self.headers: list[Any] = []
        self.pages: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append(self.path)
                site.headers.append(self.headers)
                site.pages[self.path.partition("?")[0]](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((address, 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            # The handshake waits for the first read, in the thread of its own connection.
            listening = self.server.socket
            self.server.socket = tls.wrap_socket(listening, server_side=True, do_handshake_on_connect=False)
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.root = f"http{'' if tls is None else 's'}://{address}:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def body(data: bytes, *, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def moved(to: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", to)
        handler.end_headers()

    return answer


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    yield one
    one.close()


@pytest.fixture
def video(clip) -> bytes:
    return clip("constant.mp4").read_bytes()


def refusal(url: str, limits: Limits | None = None, **options: Any) -> str:
    with (
        pytest.raises((MediaError, ResourceError)) as caught,
        Spool(limits or Limits(), allow_url=True, **options) as spool,
    ):
        spool.local(url)
    return str(caught.value)


def test_without_the_flag_nothing_is_sent(site):
    with Spool() as spool, pytest.raises(MediaError) as caught:
        spool.local(f"{site.root.replace('http', 'HTTP')}/clip.mp4?token=secret")
    assert str(caught.value).endswith(
        "/clip.mp4?...: is a URL, and only local files are read (download it first, or --allow-url)"
    )
    assert site.asked == []


def test_with_the_flag_the_content_is_a_local_file_for_a_while(site, video):
    site.pages["/clip.mp4"] = body(video, length=len(video))
    with Spool(allow_url=True) as spool:
        path = spool.local(f"{site.root}/clip.mp4")
        assert probe(path).num_frames == 60
        assert spool.shown(path) == f"{site.root}/clip.mp4"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert not os.path.exists(os.path.dirname(path))
    assert site.headers[0]["Accept-Encoding"] == "identity"


def test_an_error_names_the_url_without_its_secrets(site):
    site.pages["/page"] = body(b"<!doctype html><p>404")
    url = site.root.replace("//", "//me:pass@") + "/page?token=secret#part"
    with pytest.raises(MediaError) as caught, Spool(allow_url=True) as spool:
        probe(spool.local(url))
    assert str(caught.value).startswith(f"{site.root}/page?...: is an HTML page")
    assert site.headers[0]["Authorization"] == "Basic bWU6cGFzcw=="
    for word in ("secret", "pass@", "part"):
        assert word not in str(caught.value)


def test_a_promised_size_over_the_limit_is_not_fetched(site):
    site.pages["/big"] = body(b"x", length=10**9)
    assert "has 1,000,000,000 bytes or more, over the limit of 1,000" in refusal(
        f"{site.root}/big", Limits(max_file_bytes=1000)
    )


def test_an_unpromised_size_over_the_limit_ends_the_fetch(site):
    site.pages["/big"] = body(bytes(300_000))
    found = refusal(f"{site.root}/big", Limits(max_file_bytes=100_000))
    assert "over the limit of 100,000 (raise --max-file-size)" in found


@pytest.mark.parametrize("drip", ["header", "body", "silence"])
def test_a_slow_server_meets_the_time_limit(site, drip):
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        if drip == "body":
            handler.send_response(200)
            handler.end_headers()
        for _ in range(100):
            try:
                handler.wfile.write(b"" if drip == "silence" else b"x")
                handler.wfile.flush()
            except OSError:
                return
            time.sleep(0.05)

    site.pages["/slow"] = slowly
    start = time.monotonic()
    found = refusal(f"{site.root}/slow", url_seconds=0.4)
    assert time.monotonic() - start < 2
    assert found.endswith(
        "was not fetched within the limit of 0.4 s (raise --url-timeout, or download it first)"
    )


def test_a_connection_that_ends_early_is_no_file(site):
    site.pages["/cut"] = body(b"x" * 10, length=100)
    assert "the connection ended after 10 of 100 bytes" in refusal(f"{site.root}/cut")


def test_redirects_on_the_named_host_are_followed(site, video):
    site.pages["/a"] = moved("/b?x=1")
    site.pages["/b"] = body(video)
    with Spool(allow_url=True) as spool:
        assert probe(spool.local(f"{site.root}/a")).num_frames == 60


def test_redirects_end(site):
    site.pages["/a"] = moved("/a")
    assert "redirects more than 5 times" in refusal(f"{site.root}/a")
    assert len(site.asked) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="only there is all of 127.0.0.0/8 this machine")
def test_a_redirect_to_another_private_address_is_refused(site):
    other = Site("127.0.0.2")
    try:
        site.pages["/a"] = moved(f"{other.root}/clip.mp4")
        assert "redirects to 127.0.0.2, which is not a public address" in refusal(f"{site.root}/a")
        assert other.asked == []
    finally:
        other.close()


@pytest.mark.parametrize(
    "to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "concat:a|b", "https:///x", "http://[::bad", "data:,x"]
)
def test_a_redirect_to_anything_but_http_is_refused(site, to):
    site.pages["/a"] = moved(to)
    found = refusal(f"{site.root}/a")
    assert "only http and https are followed" in found or "no valid address" in found
    assert site.asked == ["/a"]


def test_credentials_stay_with_the_named_host(site, video, monkeypatch):
    site.pages["/a"] = moved(site.root.replace("127.0.0.1", "me:pass@elsewhere.test") + "/b")
    site.pages["/b"] = body(video)
    usual = socket.getaddrinfo
    looked_up = []

    def look_up(host: bytes, *given: Any, **named: Any) -> Any:
        looked_up.append(host)
        return usual(b"127.0.0.1" if host == b"elsewhere.test" else host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(url_module, "is_public", lambda address: True)
    with Spool(allow_url=True) as spool:
        spool.local(site.root.replace("//", "//me:pass@") + "/a")
    assert ["Authorization" in headers for headers in site.headers] == [True, False]
    assert site.headers[1]["Host"].startswith("elsewhere.test:")
    # Once for each hop, by name; what create_connection looks up is the address that was checked.
    assert looked_up == [b"127.0.0.1", "127.0.0.1", b"elsewhere.test", "127.0.0.1"]


def test_https_to_a_server_without_it_is_refused(site):
    """Certificates: `test_url_tls.py`."""
    found = refusal(site.root.replace("http", "https") + "/x")
    assert "cannot be fetched" in found
    assert site.asked == []


def test_nobody_there_and_errors_are_one_line(site):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/x").endswith(
        "cannot be fetched: Connection refused (check the address)"
    )
    site.pages["/gone"] = lambda handler: handler.send_error(404)
    assert "the server answered 404 Not Found" in refusal(f"{site.root}/gone")
    site.pages["/empty"] = body(b"")
    assert "is empty (0 bytes)" in refusal(f"{site.root}/empty")


# By what they are: the first and the last address of each range, and the neighbours outside it.
NOT_PUBLIC = {
    "this host": "0.0.0.0 0.255.255.255 127.0.0.1 127.255.255.255 ::1 ::",
    "private": "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
    "shared": "100.64.0.0 100.127.255.255",
    "link-local": "169.254.0.0 169.254.169.254 169.254.255.255 fe80::1 fe80::1%eth0 fe80::1%25 febf::1",
    "unique local": "fc00::1 fd12:3456::1 fdff:ffff::1",
    "site-local": "fec0::1 feff::1",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
    "reserved": "192.0.0.8 240.0.0.1 255.255.255.255 4000::1",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1",
    "benchmarks, discarded": "198.18.0.1 198.19.255.255 100::1",
    "IPv4-mapped": "::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe",
    "IPv4-compatible": "::a00:1 ::127.0.0.1",
    "IPv4-translated": "::ffff:0:10.0.0.1",
    "6to4": "2002:a00:1:: 2002:7f00:1:: 2002:c0a8:101::1",
    "NAT64": "64:ff9b::a00:1 64:ff9b::7f00:1 64:ff9b:1::808:808",
    # The client's address stands in the last 32 bits, inverted: 10.0.0.1 is f5ff:fffe.
    "Teredo": "2001:0:4136:e378:8000:63bf:f5ff:fffe 2001:0:4136:e378:8000:63bf:80ff:fffe",
}
PUBLIC = (
    "8.8.8.8 1.0.0.0 9.255.255.255 11.0.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 "
    "100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 223.255.255.255 "
    "2606:4700::1111 2001:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808:: "
    "2001:0:4136:e378:8000:63bf:f7f7:f7f7"
)


@pytest.mark.parametrize("kind", list(NOT_PUBLIC))
def test_which_addresses_are_not_public(kind: str):
    assert [address for address in NOT_PUBLIC[kind].split() if is_public(address)] == []


@pytest.mark.parametrize("address", PUBLIC.split())
def test_which_addresses_are_public(address: str):
    """Also where an IPv6 address stands for an IPv4 one that is."""
    assert is_public(address)


@pytest.mark.parametrize("promised", [False, True])
def test_a_size_at_the_limit_is_fetched(site, promised: bool):
    data = bytes(70_000)
    site.pages["/x"] = body(data, length=len(data) if promised else None)
    with Spool(Limits(max_file_bytes=len(data)), allow_url=True) as spool:
        assert Path(spool.local(f"{site.root}/x")).read_bytes() == data
    refused = refusal(f"{site.root}/x", Limits(max_file_bytes=len(data) - 1))
    assert "has 70,000 bytes or more, over the limit of 69,999" in refused


def test_five_redirects_are_followed(site):
    for number in range(5):
        site.pages[f"/{number}"] = moved(f"/{number + 1}")
    site.pages["/5"] = body(b"a medium")
    with Spool(allow_url=True) as spool:
        assert Path(spool.local(f"{site.root}/0")).read_bytes() == b"a medium"


def test_what_is_shown_of_a_url():
    assert shown_url("https://me:p%40ss@h.org/a/b?x=1&y=2#z") == "https://h.org/a/b?..."
    assert shown_url("http://h.org/a@b") == "http://h.org/a@b"


def test_standard_input_is_spooled_under_the_limit(video, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(video)))
    with Spool() as spool:
        path = spool.local("-")
        assert Path(path).read_bytes() == video
        assert spool.shown(path) == "standard input"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(video)))
    words = "standard input: has more bytes than the limit of 100"
    with pytest.raises(ResourceError, match=words), Spool(Limits(max_file_bytes=100)) as spool:
        spool.local("-")
    monkeypatch.setattr(sys, "stdin", None)
    with Spool() as spool, pytest.raises(UsageError, match="standard input is closed"):
        spool.local("-")


def test_a_file_named_like_a_url_is_a_file(clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "clip.mp4").write_bytes(clip("constant.mp4").read_bytes())
    with Spool() as spool:
        assert spool.local("http://clip.mp4") == "http://clip.mp4"


# Key and certificates are of these tests alone: self-signed, P-256, valid from 2020 to 2120 except the one
# that has run out. Where a test trusts one as if an authority had issued it (SSL_CERT_FILE), only its name
# and dates are left to be wrong.
KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIBm4bOr/zMPT5ofPxODjjQzH4ftnTKWuBNHXqGv6IN/ooAoGCCqGSM49
AwEHoUQDQgAEIinnEOVCvOAVseVUQjqCEtNPTZyCmUFclcGiNyAgWJ/8zanKybhk
0lhEh+zYlfxbKrqXtx2JjjHky2ZUCqL9lA==
-----END EC PRIVATE KEY-----
"""
CERTIFICATES = {
    "of this address": """\
-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUXgyFvqom/6WlzbOzZKUIua1EKTYwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFcmlnaHQwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAw
MDBaMBAxDjAMBgNVBAMMBXJpZ2h0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
IinnEOVCvOAVseVUQjqCEtNPTZyCmUFclcGiNyAgWJ/8zanKybhk0lhEh+zYlfxb
KrqXtx2JjjHky2ZUCqL9lKNTMFEwDwYDVR0RBAgwBocEfwAAATAPBgNVHRMBAf8E
BTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQU+2i6qLaBn8sILWof1ebf
jvlSERQwCgYIKoZIzj0EAwIDSAAwRQIgNhCqAN2BD7NcrEI7ohTmhINsIAOcSpXn
rcDYL1hM26oCIQC0Q5WlmjE54GnZmfxL13QxhuhlLvI1LNdEJVgyB00h2g==
-----END CERTIFICATE-----
""",
    "of another host": """\
-----BEGIN CERTIFICATE-----
MIIBiTCCAS+gAwIBAgIUaAzqmC+CXWYeSoSzITyMMWIVBuwwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJZWxzZXdoZXJlMCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAx
MDAwMDAwWjAUMRIwEAYDVQQDDAllbHNld2hlcmUwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQiKecQ5UK84BWx5VRCOoIS009NnIKZQVyVwaI3ICBYn/zNqcrJuGTS
WESH7NiV/Fsqupe3HYmOMeTLZlQKov2Uo10wWzAZBgNVHREEEjAQgg5lbHNld2hl
cmUudGVzdDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4E
FgQU+2i6qLaBn8sILWof1ebfjvlSERQwCgYIKoZIzj0EAwIDSAAwRQIgMadnYFV9
R8lfhG1TXGUDNTNGtTdPOQkBqivZlTvp3soCIQD3V09faQ0fwjCkg+6dMVsMeagd
5eCV3VhnZWgVVdWgBg==
-----END CERTIFICATE-----
""",
    "out of date": """\
-----BEGIN CERTIFICATE-----
MIIBejCCAR+gAwIBAgIUVXZjwKc67CDyDvROKxagV4UsdHkwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHZXhwaXJlZDAeFw0yMDAxMDEwMDAwMDBaFw0yMTAxMDEwMDAw
MDBaMBIxEDAOBgNVBAMMB2V4cGlyZWQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQiKecQ5UK84BWx5VRCOoIS009NnIKZQVyVwaI3ICBYn/zNqcrJuGTSWESH7NiV
/Fsqupe3HYmOMeTLZlQKov2Uo1MwUTAPBgNVHREECDAGhwR/AAABMA8GA1UdEwEB
/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgKEMB0GA1UdDgQWBBT7aLqotoGfywgtah/V
5t+O+VIRFDAKBggqhkjOPQQDAgNJADBGAiEAzLMGrPy5uvec5G9BMRLIOWRVPiEd
P6cO/6HwC+QbSw8CIQDJJALcL7FZqVqyOV5QemDHnKuJ+wraYhOxmdQo3e5exA==
-----END CERTIFICATE-----
""",
}


@pytest.fixture(params=list(CERTIFICATES))
def tls_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Site, Path]]:
    """(which certificate, a server that speaks TLS with it, the certificate's file)."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text(CERTIFICATES[request.param])
    key.write_text(KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    one = Site(tls=context)
    one.pages["/x"] = body(b"a medium")
    yield request.param, one, certificate
    one.close()


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_site):
    _, one, _ = tls_site
    assert refusal(f"{one.root}/x").endswith(
        "cannot be fetched: its certificate is not valid: self-signed certificate "
        "(download it first, if the server is to be trusted)"
    )
    assert one.asked == []


def test_of_trusted_certificates_name_and_dates_must_be_right(tls_site, monkeypatch: pytest.MonkeyPatch):
    which, one, certificate = tls_site
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    if which == "of this address":
        with Spool(allow_url=True) as spool:
            assert Path(spool.local(f"{one.root}/x")).read_bytes() == b"a medium"
        assert one.asked == ["/x"]
        return
    reason = {"of another host": "IP address mismatch", "out of date": "certificate has expired"}[which]
    found = refusal(f"{one.root}/x")
    assert "its certificate is not valid: " in found
    assert reason in found
    assert one.asked == []
