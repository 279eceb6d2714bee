"""What is added from outside works like what is built in: the examples of CONTRIBUTING.md as they stand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidllava.media.encode import write_clip

ROOT = Path(__file__).resolve().parents[1]


def example(heading: str) -> str:
    """The Python block below a heading of CONTRIBUTING.md."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split(f"### {heading}\n")[1].split("\n#")[0]
    return section.split("```python\n")[1].split("```")[0]


def run(*words: object, plugins: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIDLLAVA_PLUGINS": plugins, "COLUMNS": "120"}
    command = [sys.executable, "-m", "vidllava.cli.main", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    frames[..., 0] = 200  # red
    return write_clip(tmp_path / "red.mp4", frames, fps=4)


def test_a_decoder_from_outside_decodes_is_listed_and_says_why_not(tmp_path: Path, clip: Path):
    (tmp_path / "grey.py").write_text(example("A decoder"), encoding="utf-8")
    plugins = str(tmp_path / "grey.py")
    out = tmp_path / "frames"
    words = ("frames", clip, "--num-frames", 2, "--video-backend", "grey", "--save", out, "--json")
    ended = run(*words, plugins=plugins)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["backend"] == "grey"
    pixels = np.asarray(Image.open(sorted(out.glob("*.png"))[0]).convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=-1).max() <= 2  # grey
    assert "grey" in run("frames", "--help", plugins=plugins).stdout
    wrong = run("frames", clip, "--video-backend", "gray", plugins=plugins)
    assert wrong.returncode == 2
    assert "grey" in wrong.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps a limit on addresses")
@pytest.mark.parametrize("declared", [True, False])
def test_the_limit_on_memory_is_lifted_for_a_decoder_that_says_it_loads_torch(
    tmp_path: Path, clip: Path, declared: bool
):
    told = (
        f"LOADS_TORCH = {declared}\nNAME = 'wide'\nfrom vidllava.media.decoders.pyav import PACKAGE, INSTALL"
    )
    body = """
def decode(info, plan, size, pixels, on_ready):
    import mmap
    from vidllava.media.decoders import pyav
    try:
        mmap.mmap(-1, 16 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError:
        raise MemoryError from None
    return pyav.decode(info, plan, size, pixels, on_ready)
"""
    (tmp_path / "wide.py").write_text(told + "\n" + body, encoding="utf-8")
    ended = run(
        *("frames", clip, "--num-frames", 2, "--video-backend", "wide", "--save", tmp_path / "out"),
        plugins=str(tmp_path / "wide.py"),
    )
    assert ended.returncode == (0 if declared else 6), ended.stderr
    assert declared or "memory" in ended.stderr


def test_a_data_format_from_outside_is_read_counted_and_shown(tmp_path: Path):
    (tmp_path / "photo_qa.py").write_text(example("A data format"), encoding="utf-8")
    plugins = str(tmp_path / "photo_qa.py")
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    rows = tmp_path / "rows.jsonl"
    row = {"photo": "a.png", "ask": "What is it?", "reply": "A cat."}
    rows.write_text(f"{json.dumps(row)}\n{json.dumps({'photo': 'a.png', 'ask': 7})}\n", encoding="utf-8")
    ended = run("data", "check", rows, "--json", plugins=plugins)
    assert ended.returncode == 4, ended.stderr  # the second row is of no format
    summary = json.loads(ended.stdout.splitlines()[-1])["summary"]
    assert summary["unknown_keys"] == {}
    assert "`ask` (photo-qa)" in ended.stderr + ended.stdout
    shown = run("data", "--help", plugins=plugins)
    assert '"reply": "A cat."' in shown.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file or folder"),
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(tmp_path: Path, content: str | None, said: str):
    path = tmp_path / "broken.py"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    ended = run("frames", "--help", plugins=str(path))
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: VIDLLAVA_PLUGINS {path}: {said}")
    assert len(ended.stderr.splitlines()) == 1
