"""An https fetch ends where nobody vouches for the certificate, or it is not of this host or day.

Key and certificates are of these tests alone: self-signed, P-256, valid from 2020 to 2120 except the one that
has run out. Where a test trusts one as if an authority had issued it (SSL_CERT_FILE), only its name and dates
are left to be wrong.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.media.test_url import Site, body, refusal
from vidllava.media.sources import Spool

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
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Site, Path]]:
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


def test_a_certificate_that_nobody_vouches_for_is_refused(site):
    _, one, _ = site
    assert refusal(f"{one.root}/x").endswith(
        "cannot be fetched: its certificate is not valid: self-signed certificate "
        "(download it first, if the server is to be trusted)"
    )
    assert one.asked == []


def test_of_trusted_certificates_name_and_dates_must_be_right(site, monkeypatch: pytest.MonkeyPatch):
    which, one, certificate = site
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
