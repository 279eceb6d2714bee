"""Commands run in this process, with their exit code and both streams; a few tests start real processes."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clips import numbered_picture, write_clip


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an expected fault. Fails where there is more than that line."""
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), lines[0]
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line as the console script would, in this process."""
    from vidllava.cli import main

    def command(*arguments: object, stdin: str | None = None) -> Result:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main.run([str(argument) for argument in arguments])
        gc.unfreeze()  # what `ask` set aside for a process that ends: this one goes on
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return command


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """The console script in a process of its own; its streams are pipes unless ``options`` say otherwise."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    script = Path(sys.executable).with_name("vidllava")
    return subprocess.Popen([str(script), *map(str, arguments)], **settings)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the true format with random weights, and nano's preset."""
    from tests.tiny import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("model"), preset="nano")


@pytest.fixture(autouse=True)
def own_model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands use the small random model unless a test says otherwise."""
    if "no_model" not in request.keywords:
        monkeypatch.setenv("VIDLLAVA_MODEL", str(request.getfixturevalue("model")))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames at 30 per second: 2 s."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PNG of 128 x 96 pixels."""
    from PIL import Image

    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(numbered_picture(7)).save(path)
    return path


@pytest.fixture
def bad_files(tmp_path: Path, clip: Path) -> dict[str, Path]:
    """One file of each kind that cannot be used."""
    import av

    files = {
        name: tmp_path / f"{name}.mp4" for name in ("missing", "empty", "text", "truncated", "folder", "fifo")
    }
    files["empty"].touch()
    files["text"].write_text("This is not a video, whatever its name says.\n" * 40, encoding="utf-8")
    files["truncated"].write_bytes(clip.read_bytes()[:1000])
    files["folder"].mkdir()
    os.mkfifo(files["fifo"])
    files["sound"] = tmp_path / "sound.mp4"
    with av.open(str(files["sound"]), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate, frame.pts = 8000, 0
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return files
