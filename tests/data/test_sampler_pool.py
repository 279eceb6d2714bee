"""Closing a pool ends what is being decoded, at once and with its process."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from tests.data.test_own_sampler import children
from vidllava.data.own_sampler import OwnSampler, SamplerPool
from vidllava.media import wire
from vidllava.media.limits import Limits

_SLEEPER = """
import pathlib, sys, time
import vidllava.media.serve as module
from vidllava.media import worker_child
def serve(request, descriptor, line):
    pathlib.Path(request["path"] + ".begun").touch()
    time.sleep(600)
module.serve = serve
worker_child.main()
"""


@pytest.mark.parametrize("leave", ["close", "error"])
def test_a_decode_in_flight_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: str):
    monkeypatch.setattr(wire, "_COMMAND", ("-P", "-c", _SLEEPER))
    before = children(os.getpid())
    ended: list[BaseException] = []
    pool = SamplerPool(Limits(decode_seconds=500), 1)

    def look(sampler: OwnSampler, name: str) -> tuple[int, int]:
        return sampler.picture_size(str(tmp_path / name))

    def use() -> None:
        try:
            list(pool.map(look, ["first", "second", "third"]))
        except (Exception, CancelledError) as error:
            ended.append(error)

    user = threading.Thread(target=use, daemon=True)
    user.start()
    while not (tmp_path / "first.begun").exists():
        time.sleep(0.01)

    def end() -> None:
        if leave == "close":
            return pool.close()
        with pytest.raises(KeyboardInterrupt), pool:
            raise KeyboardInterrupt
        return None

    closer = threading.Thread(target=end, daemon=True)
    start = time.monotonic()
    closer.start()
    closer.join(60)
    user.join(60)
    assert not closer.is_alive()
    assert not user.is_alive()
    assert time.monotonic() - start < 30, "nobody waits for a decoder that is not wanted any more"
    assert len(ended) == 1
    assert not (tmp_path / "second.begun").exists()
    assert not children(os.getpid()) - before
