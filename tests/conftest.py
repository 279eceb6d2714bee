"""Every test runs offline, away from the user's settings and caches, whatever machine it is on."""

from __future__ import annotations

import itertools
import os
import socket
import tempfile

import pytest

# Before any test module imports huggingface_hub, which reads these once.
_EMPTY_HOME = tempfile.mkdtemp(prefix="vidllava-tests-")
for _name in [name for name in os.environ if name.startswith(("VIDLLAVA_", "HF_", "TRANSFORMERS_"))]:
    if _name != "VIDLLAVA_TEST_MEDIA":  # names a folder for tests, and changes nothing else
        del os.environ[_name]
_CACHES = itertools.count()
os.environ.update(HF_HOME=_EMPTY_HOME, HF_HUB_OFFLINE="1", NO_COLOR="1", TERMINAL_WIDTH="100")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins with an empty feature cache; the folder is made where something is written to it."""
    monkeypatch.setenv("VIDLLAVA_CACHE", os.path.join(_EMPTY_HOME, f"cache-{next(_CACHES)}"))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine is a failure, not a wait."""
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: object) -> None:
        local = self.family == getattr(socket, "AF_UNIX", None) or str(address).startswith(
            ("('127.", "('::1'")
        )
        if not local:
            raise AssertionError(f"a test tried to connect to {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", only_here)
