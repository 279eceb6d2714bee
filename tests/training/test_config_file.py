"""`--config FILE`: options by name, the command line wins, and a run's own settings can be read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_checkpoint
from tests.training.conftest import metrics, weights
from vidllava.cli import main
from vidllava.training.job import Job, record
from vidllava.training.report import RunEnd
from vidllava.training.settings import TrainingSettings

WORDS = ("--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight rows of text."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    said = [[{"from": "human", "value": f"what is {n}?"}, {"from": "gpt", "value": str(n)}] for n in range(8)]
    path.write_text(
        "\n".join(json.dumps({"id": str(n), "conversations": turns}) for n, turns in enumerate(said))
    )
    return path


@pytest.fixture
def config(tmp_path: Path, checkpoint: Path, rows: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(
        f"""
model: {checkpoint}
data: [{rows}]
max-steps: 2
learning_rate: 1e-3
per-device-train-batch-size: 2
freeze: [vision, projector]
save-steps: 0
logging_steps: 1
bf16: false
output-dir: {tmp_path / "out"}
"""
    )
    return path


def test_it_sets_options_and_the_command_line_wins(config: Path, tmp_path: Path, capfd):
    assert main.run(["finetune", "--config", str(config), "--max_steps", "3", *WORDS]) == 0, (
        capfd.readouterr()
    )
    assert capfd.readouterr().out == f"{tmp_path / 'out'}\n"
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["max_steps"], settings["learning_rate"]) == (3, 1e-3)
    assert settings["freeze"] == ["vision", "projector"]
    assert len(metrics(tmp_path / "out")) == 3


def test_the_resolved_settings_make_the_same_run_again(config: Path, tmp_path: Path):
    more = ["--stage", "2-si", "--recipe", "interleave", "--freeze", "none", "--max-grad-norm", "0"]
    assert main.run(["finetune", "--config", str(config), *more, *WORDS]) == 0
    first, again = tmp_path / "out", tmp_path / "again"
    words = ["finetune", "--config", str(first / "settings.json"), "--output-dir", str(again)]
    assert main.run([*words, *WORDS]) == 0
    assert weights(again) == weights(first)
    settings = [json.loads((folder / "settings.json").read_text()) for folder in (first, again)]
    assert settings[0] == settings[1]
    assert settings[0]["freeze"] == "none"


class NoSession:
    """In the place of a run's session: what a run is set to is known without it."""

    def __init__(self, *_parts: object) -> None: ...

    def finished_before(self) -> None: ...

    def run(self) -> RunEnd:
        return RunEnd(0)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidllava.training.session.TrainingProcess", NoSession)


def settings_after(config: Path, output: Path, *words: str) -> dict[str, Any]:
    """What a run is set to."""
    args = ["finetune", "--config", str(config), "--output-dir", str(output), *words, *WORDS]
    assert main.run(args) == 0
    return json.loads((output / "settings.json").read_text())


@pytest.mark.usefixtures("untrained")
def test_what_was_derived_follows_what_it_hangs_on_and_what_was_given_stays(config: Path, tmp_path: Path):
    """A run's settings.json with another rate, recipe or seed is the run that was meant."""
    first = settings_after(config, tmp_path / "a", "--stage", "2-si", "--freeze", "none")
    assert (first["learning_rate"], first["vision_lr"], first["projector_lr"]) == (1e-3, 2e-4, 1e-3)
    assert (first["data_seed"], first["anyres_max_tiles"]) == (42, 9)
    file = tmp_path / "a" / "settings.json"
    changed = ["--learning-rate", "5e-6", "--seed", "7", "--stage", "1.5", "--recipe", "next-video"]
    again = settings_after(file, tmp_path / "b", *changed)
    assert (again["learning_rate"], again["projector_lr"]) == (5e-6, 5e-6)
    assert again["vision_lr"] == pytest.approx(1e-6)
    assert (again["seed"], again["data_seed"], again["anyres_max_tiles"]) == (7, 7, 4)
    assert (again["newline_mode"], again["num_frames"]) == ("no_token", 32)
    assert (again["stage"], again["freeze"]) == ("1.5", "none")
    last = settings_after(tmp_path / "b" / "settings.json", tmp_path / "c", "--recipe", "interleave")
    assert (last["pool_stride"], last["placement"], last["newline_mode"]) == (1, "mixed", "no_token")
    given = settings_after(config, tmp_path / "d", "--vision-lr", "3e-4", "--data-seed", "5")
    kept = settings_after(
        tmp_path / "d" / "settings.json", tmp_path / "e", "--learning-rate", "5e-6", "--seed", "1"
    )
    assert (given["vision_lr"], kept["vision_lr"], kept["projector_lr"]) == (3e-4, 3e-4, 5e-6)
    assert (kept["data_seed"], kept["seed"]) == (5, 1)


@pytest.mark.usefixtures("untrained")
def test_a_model_that_is_exchanged_brings_its_own_length(
    config: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    first = settings_after(config, tmp_path / "a")
    longer = tiny_checkpoint(tmp_path_factory.mktemp("longer"), max_position_embeddings=1024)
    again = settings_after(tmp_path / "a" / "settings.json", tmp_path / "b", "--model", str(longer))
    assert first["model_max_length"] == 512 != again["model_max_length"]


@pytest.mark.usefixtures("untrained")
def test_what_lora_adds_to_the_frozen_modules_is_not_taken_for_given(config: Path, tmp_path: Path):
    first = settings_after(config, tmp_path / "a", "--lora", "--freeze", "projector", "--lora-rank", "2")
    assert (first["freeze"], first["lora_modules"]) == (["projector", "llm"], ["llm"])
    file = tmp_path / "a" / "settings.json"
    again = settings_after(file, tmp_path / "b", "--lora-modules", "llm,vision")
    assert again["freeze"] == ["vision", "projector", "llm"]
    assert again["derived"]["freeze"]["given"] == ["projector"]


@pytest.mark.usefixtures("untrained")
def test_a_derived_value_that_was_edited_counts_as_given(config: Path, tmp_path: Path):
    settings_after(config, tmp_path / "a")
    file = tmp_path / "a" / "settings.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"vision_lr": 7e-6}))
    assert settings_after(file, tmp_path / "b", "--learning-rate", "5e-6")["vision_lr"] == 7e-6


@pytest.mark.usefixtures("untrained")
def test_settings_of_an_earlier_version_are_read_as_given(config: Path, tmp_path: Path):
    settings_after(config, tmp_path / "a")
    file = tmp_path / "a" / "settings.json"
    values = json.loads(file.read_text())
    del values["derived"]
    file.write_text(json.dumps(values))
    again = settings_after(file, tmp_path / "b", "--learning-rate", "5e-6")
    assert (again["learning_rate"], again["vision_lr"]) == (5e-6, values["vision_lr"])


@pytest.mark.parametrize(
    ("in_file", "words", "found"),
    [
        ("max-steps: 9", ("--num-train-epochs", "0.5"), {"max_steps": None, "num_train_epochs": 0.5}),
        ("num-train-epochs: 9", ("--max-steps", "1"), {"max_steps": 1}),
        ("warmup-steps: 9", ("--warmup-ratio", "0.5"), {"warmup_steps": None, "warmup_ratio": 0.5}),
        ("num-frames: 9", ("--fps", "2"), {"num_frames": None, "fps": 2.0}),
        ("fps: 9", ("--num-frames", "2"), {"num_frames": 2, "fps": None}),
        ("bf16: true", ("--fp16",), {"bf16": False, "fp16": True}),
        ("fp16: true", ("--bf16",), {"bf16": True, "fp16": False}),
        ("data-weights: 1,2", ("--data", "{rows}"), {"data_weights": None}),
        ("data-weights: 2", (), {"data_weights": [2.0]}),
    ],
)
def test_the_command_line_wins_over_another_way_to_say_the_same(
    in_file: str,
    words: tuple[str, ...],
    found: dict[str, object],
    checkpoint: Path,
    rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {checkpoint}\ndata: [{rows}]\n{in_file}\n")
    seen: list[dict[str, Any]] = []

    def instead(job: Job, settings: TrainingSettings, report: object) -> RunEnd:
        seen.append(record(job, settings.as_given()))
        return RunEnd(1)

    monkeypatch.setattr("vidllava.training.run.finetune", instead)
    given = [word.format(rows=rows) for word in words]
    args = ["finetune", "--config", str(path), "--output-dir", str(tmp_path / "out"), *given, *WORDS]
    assert main.run(args) == 0
    assert {name: seen[0][name] for name in found} == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning-rte: 1", "learning-rte: is not an option of this command (did you mean learning-rate?)"),
        ("lerning_rate: 1", "lerning_rate: is not an option of this command (did you mean learning-rate?)"),
        ("zzz: 1", "zzz: is not an option of this command (see vidllava finetune --help)"),
        ("config: other.yaml", "config: is not an option of this command"),
        ("max-steps: 1\nmax_steps: 2", "max_steps: is given twice, with - and with _"),
        ("max-steps: {a: 1}", "max-steps: cannot be {'a': 1}"),
        ("derived: 3", "derived: is not a table of options"),
        ("derived: {vision_lr: 3}", "derived: vision_lr: needs `given` and `became`"),
        ("- 1\n- 2", "holds no options"),
        ("a: [", "is not YAML"),
        ("mix: stir", "--mix"),
        ("max-steps: many", "--max-steps"),
    ],
)
def test_what_it_cannot_mean_is_one_line(text: str, message: str, tmp_path: Path, capfd):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert main.run(["finetune", "--config", str(path)]) == 2
    stderr = capfd.readouterr().err
    assert message in stderr
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("error: ")


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path, capfd):
    assert main.run(["finetune", "--config", str(tmp_path / "nothing.yaml")]) == 2
    assert capfd.readouterr().err.startswith(f"error: --config: {tmp_path / 'nothing.yaml'}: no such file")


def test_an_attention_that_does_not_exist_is_wrong_usage(config: Path, capfd):
    assert main.run(["finetune", "--config", str(config), "--attn-implementation", "bogus", *WORDS]) == 2
    assert capfd.readouterr().err.startswith("error: --attn-implementation bogus: no such attention (")


def test_every_option_can_stand_in_a_settings_file(config: Path, tmp_path: Path):
    """What a run saves names every option that decides how it goes."""
    import typer

    from vidllava.cli.main import program

    assert main.run(["finetune", "--config", str(config), *WORDS]) == 0
    command = typer.main.get_command(program()).commands["finetune"]  # type: ignore[attr-defined]
    names = {parameter.name for parameter in command.params if parameter.param_type_name == "option"}
    of_one_start = {"config", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "allow_changes"}
    saved = set(json.loads((tmp_path / "out" / "settings.json").read_text()))
    assert saved - {"derived"} == names - of_one_start - {"quiet", "verbose", "help"}
