"""Media for data sets, good ones and every kind of bad one; a decoder that hangs and crashes on demand."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.clips import write_clip
from vidllava.media import wire
from vidllava.media.worker import WorkerSampler


def make_media(tmp_path: Path) -> Path:
    """A folder of pictures of several sizes, a clip, a folder of frames, and what cannot be read."""
    folder = tmp_path / "media"
    (folder / "frames").mkdir(parents=True)
    for number, (height, width) in enumerate([(40, 60), (70, 140), (140, 70), (300, 300)]):
        Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(folder / f"{number}.png")
    for number in range(12):
        Image.fromarray(np.full((40, 60, 3), number * 20, np.uint8)).save(folder / "frames" / f"{number}.png")
    clip = write_clip(folder / "clip.mkv", num_frames=21)
    (folder / "cut.mkv").write_bytes(clip.read_bytes()[:1000])
    # Its header is whole: only decoding finds that the rest is not.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "torn.png")
    (folder / "torn.png").write_bytes((folder / "torn.png").read_bytes()[:4000])
    (folder / "page.png").write_bytes(b"<html>no picture</html>")
    (folder / "empty.png").write_bytes(b"")
    (folder / "hangs.png").write_bytes((folder / "0.png").read_bytes())
    (folder / "hangs.mkv").write_bytes(clip.read_bytes())
    (folder / "crashes.png").write_bytes((folder / "0.png").read_bytes())
    return folder


def make_decoder_faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding workers that sleep over files named hangs, and die of files named crashes.

    The first are waited for half a second; all others as long as a busy machine may need.
    """
    program = """
        import os, signal, time
        import vidllava.media.serve as module
        from vidllava.media import worker_child
        usual = module.serve
        def serve(request, descriptor, line):
            if "hangs" in request["path"]:
                time.sleep(60)
            if "crashes" in request["path"]:
                os.kill(os.getpid(), signal.SIGSEGV)
            return usual(request, descriptor, line)
        module.serve = serve
        worker_child.main()
    """
    monkeypatch.setattr(wire, "_COMMAND", ("-P", "-c", textwrap.dedent(program)))
    usual = WorkerSampler._collect

    def collect(self: WorkerSampler, number: int, path: str) -> Any:
        limits = self.limits
        self.limits = replace(limits, decode_seconds=0.5) if "hangs" in path else limits
        try:
            return usual(self, number, path)
        finally:
            self.limits = limits

    monkeypatch.setattr(WorkerSampler, "_collect", collect)
