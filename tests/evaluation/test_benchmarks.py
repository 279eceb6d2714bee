"""Benchmarks are found, not listed: by scanning their folder, and from outside, as CONTRIBUTING.md shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.cli.conftest import Run, model, own_model, run  # noqa: F401  fixtures
from tests.clips import numbered_picture
from tests.evaluation.published import EGO, EGO_OPTIONS, LVB, NEXTQA, VIDEOMME, write_json
from vidllava import registry
from vidllava.cli.eval import task_names
from vidllava.errors import DatasetError, UsageError
from vidllava.evaluation import benchmarks
from vidllava.evaluation.item import Task
from vidllava.evaluation.read import read_set

ROOT = Path(__file__).resolve().parents[2]
CHOICES: dict[str, Any] = {"question": "q", "candidates": ["a", "b"], "answer": "a"}
RECORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "nextqa-mc": ("test.csv", {**NEXTQA, "question": "q", "answer": 0, **{f"a{n}": "x" for n in range(5)}}),
    "nextqa-oe": ("test.csv", {**NEXTQA, "question": "q", "answer": "x"}),
    "videomme": ("test.json", VIDEOMME),
    "mvbench": ("action_count.json", {**CHOICES, "video": "a.mp4"}),
    "egoschema": ("questions.json", {**EGO, **EGO_OPTIONS}),
    "perceptiontest": ("test.json", {"video_name": "a", "question": "q", "options": ["a"], "answer_id": 0}),
    "activitynetqa": ("test_q.json", {"video_name": "a", "question_id": "1", "question": "q"}),
    "mlvu": ("4_count.json", {**CHOICES, "video": "a.mp4", "question_type": "count"}),
    "longvideobench": ("lvb_val.json", {**LVB, "candidates": ["a"], "correct_choice": 0}),
    "interleave-bench": ("x.json", {"conversations": [], "metadata": {"question_type": "x"}}),
    "own": ("own.jsonl", {"video": "a.mp4", "question": "q"}),
}
OTHERS = (
    ("mlvu", "x.json", {"video_name": "a", "question_id": 3, "question": "q", "task_type": "count"}),
    ("mlvu", "action_count.json", {**CHOICES, "video": "a.mp4", "question_type": "count"}),
)
VARIANTS = {"videomme-subtitles": "videomme", "egoschema-subset": "egoschema"}


@pytest.fixture(autouse=True)
def nothing_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    monkeypatch.setattr(benchmarks, "_registered", [])


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example of CONTRIBUTING.md in a folder outside of the package."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.partition("### A benchmark\n")[2].partition("\n#")[0]
    path = tmp_path / "mine" / "traffic_signs.py"
    path.parent.mkdir()
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    path.write_text(code, encoding="utf-8")
    return path


def test_which_data_set_a_record_is_does_not_hang_on_the_order_of_the_files():
    assert RECORDS.keys() | VARIANTS.keys() == {task.name for task in benchmarks.tasks()}
    listed = [(name, *record) for name, record in RECORDS.items()]
    for name, file, record in (*listed, *OTHERS):
        found = {task.name for task in benchmarks.tasks() if task.recognises(record, Path(file))}
        special = {VARIANTS.get(each, each) for each in found if name == "own" or each != "own"}
        assert special == {name}, record
    assert benchmarks.tasks()[-1].name == "own"


def test_help_names_the_benchmarks_that_there_are():
    assert task_names() == [task.name for task in benchmarks.tasks()]


def test_no_benchmark_is_named_outside_of_its_file():
    names = {task.name for task in benchmarks.tasks()} - {"own"}
    modules = [*(ROOT / "vidllava").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]
    inside = ROOT / "vidllava" / "evaluation" / "benchmarks"
    for path in modules:
        if path.parent != inside:
            words = set(re.findall(r"""["']([a-z-]+)["']""", path.read_text(encoding="utf-8")))
            assert not words & names, path


def test_the_example_of_contributing_is_evaluated_from_outside(
    run: Run,  # noqa: F811
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    rows = [
        {"sign": "stop.png", "asked": "Which?", "choices": ["stop", "go"], "right": 0, "country": "no"}
    ] * 3
    Image.fromarray(numbered_picture(3)).save(tmp_path / "stop.png")
    data = write_json(tmp_path / "signs.json", [*rows, {**rows[0], "sign": "missing"}])
    flags = ("eval", "--data", data, "-o", tmp_path / "out.jsonl", "--max-new-tokens", 4, "--max-failed", 1)
    assert "in no format that is known" in run(*flags).error
    monkeypatch.setenv(registry.VARIABLE, str(example.parent))
    result = run(*flags)
    assert (result.code, "4 questions of traffic-signs" in result.err) == (0, True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["target"] for line in lines] == ["A"] * 4
    assert [line["status"] == "decode_error" for line in lines] == [False, False, False, True]
    summary = json.loads((tmp_path / "out.jsonl.summary.json").read_text())
    assert (summary["task"], list(summary["groups"]["country"])) == ("traffic-signs", ["no"])
    assert "traffic-signs, own" in " ".join(re.sub("[│\n]", " ", run("eval", "--help").out).split())
    assert "traffic-signs" in run(*flags, "--task", "traffic").error


def test_a_benchmark_is_registered_once(tmp_path: Path):
    def none(*_: object) -> list[Any]:
        return []

    mine = Task("mine", lambda record, path: "mine" in record, none)
    benchmarks.register(mine)
    with pytest.raises(UsageError, match="there is a benchmark of this name"):
        benchmarks.register(Task("mlvu", mine.recognises, none))
    with pytest.raises(DatasetError, match="holds no questions"):
        read_set(write_json(tmp_path / "data.json", [{"mine": 1}]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file or folder"),
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("TASKS = ['x']", "has no tuple TASKS"),
        ("from vidllava.evaluation.benchmarks.mlvu import TASKS", "two benchmarks have the name mlvu"),
    ],
)
def test_what_cannot_be_added_is_told(
    text: str | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / f"added_{abs(hash(words))}.py"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv(registry.VARIABLE, str(path))
    with pytest.raises(UsageError, match=words):
        benchmarks.tasks()
