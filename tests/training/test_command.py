"""`vidllava finetune` as a process: signals, exit codes, streams, two processes, and the flags themselves."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import metrics, weights
from vidllava.cli import main
from vidllava.cli.finetune import finetune
from vidllava.training.checkpoint import find_checkpoint
from vidllava.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rows: pictures alone, pictures in pairs, text."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(10):
        name = f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / name)
        media, marks = [({"image": name}, 1), ({"image": [name, "0.png"]}, 2), ({}, 0)][number % 3]
        said = [
            {"from": "human", "value": "<image>" * marks + "\nwhich?"},
            {"from": "gpt", "value": str(number)},
        ]
        rows.append({"id": str(number), "conversations": said, **media})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder / "rows.jsonl"


def command(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    rates = ["--learning-rate", "1e-3", "--per-device-train-batch-size", "2", "--device", "cpu"]
    paths = ["--model", str(checkpoint), "--data", str(data), "--output-dir", str(output)]
    return ["finetune", *rates, *paths, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def handlers_restored() -> Iterator[None]:
    """A command that runs in this process leaves its SIGTERM handler behind."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_flags_have_the_defaults_of_the_settings():
    flags = inspect.signature(finetune).parameters
    fields = TrainingSettings.__dataclass_fields__
    assert set(fields) <= set(flags), "every setting has a flag of its name"
    for name, field in fields.items():
        # Words with commas on the command line are a tuple in the settings.
        default = ",".join(field.default) or None if isinstance(field.default, tuple) else field.default
        assert flags[name].default == default, name


def test_it_trains_and_says_where_the_result_is(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = command(checkpoint, data, tmp_path / "out", "--max_steps", "3", "--freeze", "vision, llm")
    assert main.run([*words, "--logging-steps", "1"]) == 0
    stdout, stderr = capfd.readouterr()
    assert stdout == f"{tmp_path / 'out'}\n"
    assert [row["step"] for row in metrics(tmp_path / "out")] == [1, 2, 3]
    assert re.search(r"note: vision +[\d,]+ +0 +frozen\n", stderr)
    assert "step 3/3, loss" in stderr
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["freeze"] == ["vision", "llm"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--data", "x.json"), 2, "error: --output-dir: is missing"),
        (("--output-dir", "{out}"), 2, "error: --data: is missing"),
        (("--output-dir", "{out}", "--data", "nope.json"), 4, "error: nope.json: no such file"),
        (
            ("--output-dir", "{out}", "--data", "{rows}", "--mix", "video-only"),
            2,
            "error: --mix video-only: ",
        ),
        (
            ("--output-dir", "{out}", "--data", "{rows}", "{rows}", "--data-weights", "1"),
            2,
            "error: --data-weights",
        ),
        (
            ("--output-dir", "{out}", "--data", "{rows}", "--data-weights", "a"),
            2,
            "error: --data-weights: must be",
        ),
        (("--output-dir", "{out}", "--data", "{rows}", "--max-steps", "0"), 2, "error: --max-steps: must be"),
        (("--output-dir", "{out}", "--data", "{rows}", "--fps", "1", "--num-frames", "2"), 2, "error: --"),
        (
            ("--output-dir", "{out}", "--data", "{bad}"),
            4,
            "error: {bad}: 1 of 1 rows cannot be used: row 1: ",
        ),
        (
            ("--output-dir", "{out}", "--data", "nano-world:nowhere"),
            2,
            "error: nano-world:nowhere: no such stage",
        ),
        (
            ("--output-dir", "{out}", "--data", "{rows}", "--resume-from-checkpoint", "{out}/checkpoint-3"),
            5,
            "error: {out}/checkpoint-3: no such checkpoint",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_a_code(
    words, code, message, checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    bad = tmp_path / "bad.json"
    bad.write_text('[{"image": "x.png", "conversations": [{"from": "human", "value": "<image>"}]}]')
    places = {"out": tmp_path / "out", "rows": data, "bad": bad}
    given = [word.format(**places) for word in words]
    found = main.run(["finetune", "--device", "cpu", "--model", str(checkpoint), *given])
    stderr = capfd.readouterr().err
    assert found == code, stderr
    errors = [line for line in stderr.splitlines() if not line.startswith("note: ")]
    assert len(errors) == 1, stderr
    assert errors[0].startswith(message.format(**places))


def test_one_command_line_starts_and_finishes_a_run_and_says_when_it_is_done(
    checkpoint: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = command(checkpoint, data, tmp_path / "out", "--max-steps", "2", "--save-steps", "0")
    said = []
    for _ in range(2):
        assert main.run([*words, "--resume-from-checkpoint", "latest"]) == 0
        stdout, stderr = capfd.readouterr()
        assert stdout == f"{tmp_path / 'out'}\n"
        said.append(stderr)
    assert f"note: {tmp_path / 'out'} holds no checkpoint: the run starts from the beginning\n" in said[0]
    assert said[1] == "note: finished already, after step 2; more --max-steps make the run longer\n"


def test_a_signal_finishes_the_step_saves_and_the_run_can_go_on(checkpoint: Path, data: Path, tmp_path: Path):
    output = tmp_path / "out"
    words = command(
        checkpoint, data, output, "--max-steps", "400", "--logging-steps", "1", "--save-steps", "0"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "vidllava.cli.main", *words, "--dataloader-num-workers", "1"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    while "step 2/" not in (line := process.stderr.readline()):
        assert line, "the run ended by itself"
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 143
    assert "warning: stopped after step" in rest
    found, skipped = find_checkpoint(output)
    assert found is not None
    assert not skipped
    assert [row["step"] for row in metrics(output)] == list(range(1, found.step + 1))
    assert not (output / "model.safetensors").exists()


def test_two_processes_give_the_losses_of_one(checkpoint: Path, data: Path, tmp_path: Path):
    more = ("--max-steps", "3", "--logging-steps", "1", "--seed", "3")
    one = command(checkpoint, data, tmp_path / "one", *more, "--per-device-train-batch-size", "4", "--quiet")
    assert main.run(one) == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    two = subprocess.run(
        [*launcher, "vidllava.cli.main", *command(checkpoint, data, tmp_path / "two", *more)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
        check=False,
    )
    assert two.returncode == 0, two.stderr[-2000:]
    assert two.stdout == f"{tmp_path / 'two'}\n"
    rows = [metrics(tmp_path / name) for name in ("one", "two")]
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in rows[1]] == pytest.approx([row[name] for row in rows[0]], rel=1e-4)
    assert weights(tmp_path / "two") != weights(checkpoint)
