"""``ask`` from clip to answer with the preset of LLaVA-NeXT-Video, by torch's and by Triton's kernels.

Triton's source runs in its interpreter; both read the same random weights and must say the same words.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clips import write_clip
from tests.kernels.test_interpreter import interpreter
from tests.models.checkpoints import hf_checkpoint
from tests.tiny import tiny_checkpoint

__all__ = ["interpreter"]  # a fixture


def asked(model: Path, clip: Path, *words: str, **variables: str) -> dict:
    command = [
        sys.executable,
        "-m",
        "vidllava.cli.main",
        "ask",
        str(clip),
        "what happens",
        "--model",
        str(model),
    ]
    command += ["--num-frames", "3", "--rope-factor", "8", "--max-new-tokens", "6", "--json", *words]
    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", ["next-video-7b", "onevision read as next-video"])
def test_next_videos_preset_answers_by_both_kernels(family: str, tmp_path: Path, interpreter: None):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=12, width=128, height=96)
    if family == "next-video-7b":
        model, words = hf_checkpoint(family, tmp_path / "model"), ()
    else:
        model, words = tiny_checkpoint(tmp_path / "model"), ("--preset", "next-video")
    plain = asked(model, clip, *words, VIDLLAVA_KERNELS="torch")
    triton = asked(model, clip, *words, VIDLLAVA_KERNELS="triton", TRITON_INTERPRET="1")
    assert plain["answer"] == triton["answer"]
    assert plain["usage"] == triton["usage"]
    assert plain["usage"]["completion_tokens"] > 0
    assert plain["budget"]["newline_tokens"] == 0
    assert plain["budget"]["rope_factor"] == 8
