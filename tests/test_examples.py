"""The examples run as they are written, and nano answers the questions that ship with them."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).stem}", EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_short_and_say_how_to_start_them(name: str):
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert f"python examples/{name}" in text


def test_ask(capsys: pytest.CaptureFixture[str]):
    load("ask.py").main()
    answer, frames, tokens, seconds = capsys.readouterr().out.splitlines()
    assert answer
    assert frames.count(" s") == 8
    assert "tokens in" in tokens
    assert "prefill" in seconds


def test_frames_without_torch():
    code = "import sys, runpy; runpy.run_path(sys.argv.pop(), run_name='__main__'); "
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, str(EXAMPLES / "frames.py")], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    # LLaVA-OneVision at stride 2, 1000 tokens in reserve of 4096 x factor.
    assert done.stdout.splitlines()[-3].split() == ["2", "196", "15", "36", "57", "78"]


def test_kernels(capsys: pytest.CaptureFixture[str]):
    load("kernels.py").main()
    out = capsys.readouterr().out
    assert float(out.split("interpolate: ")[1].split()[0]) < 1e-5
    assert float(out.split("lengths: ")[1].split()[0]) < 1e-5


def test_finetune_learns_and_leaves_a_model_that_answers(tmp_path: Path):
    output = tmp_path / "out"
    script = [sys.executable, str(EXAMPLES / "finetune.py"), str(output)]
    done = subprocess.run(
        script, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    losses = [
        json.loads(line)["loss"]
        for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert losses[-1] < losses[0]
    load("ask.py").main(str(EXAMPLES / "clip.mp4"), "who drew this clip?", str(output))


def test_nano_answers_as_many_of_its_questions_as_were_measured():
    right, asked = load("questions.py").main()
    assert asked == 34
    assert right >= 0.9 * asked
