"""Runs of a tiny model on a world in memory, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_checkpoint
from tests.worlds import World
from vidllava.training.job import Job
from vidllava.training.report import RunEnd
from vidllava.training.run import finetune
from vidllava.training.settings import TrainingSettings

EVERYTHING = ("text", "picture", "pictures", "video")
SMALL: dict[str, Any] = {
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "logging_steps": 2,
    "save_steps": 0,
}


class Heard:
    """A report that remembers."""

    def __init__(self) -> None:
        self.modules: list[Mapping[str, Any]] = []
        self.steps: list[int] = []
        self.rows: list[Mapping[str, Any]] = []
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.validatings: list[tuple[int, int]] = []
        self.validations: list[Mapping[str, Any]] = []
        self.measurings: list[tuple[int, int]] = []
        self.total_steps = self.done_steps = -1

    def resolved(self, rows: Sequence[tuple[str, str, str]]) -> None:
        self.resolved_rows = list(rows)

    def measured(self, done: int, total: int) -> None:
        self.measurings.append((done, total))

    def begins(self, *, total_steps: int, done_steps: int, modules: Sequence[Mapping[str, Any]]) -> None:
        self.total_steps, self.done_steps, self.modules = total_steps, done_steps, list(modules)

    def stepped(self, step: int) -> None:
        self.steps.append(step)

    def logged(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)

    def validating(self, done: int, total: int) -> None:
        self.validatings.append((done, total))

    def validated(self, row: Mapping[str, Any]) -> None:
        self.validations.append(row)

    def said(self, line: str) -> None:
        self.lines.append(line)

    def noted(self, line: str) -> None:
        self.notes.append(line)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"), preset="nano")


Run = Callable[..., tuple[RunEnd, Heard]]


@pytest.fixture
def run(checkpoint: Path) -> Run:
    """`run(output, max_steps=6)`: settings by name; `world`, `resume` and other parts of the Job too."""

    def start(output: Path, *, world: World | None = None, **options: Any) -> tuple[RunEnd, Heard]:
        source = world or World(EVERYTHING, 6)
        parts = {name: options.pop(name) for name in list(options) if name in Job.__dataclass_fields__}
        job = Job(
            **{
                "model": str(checkpoint),
                "data": ("world:",),
                "output_dir": output,
                "device": "cpu",
                "schemes": {"world": lambda _spec: source},
            }
            | parts
        )
        heard = Heard()
        return finetune(job, TrainingSettings(**(SMALL | options)), heard), heard

    return start


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
