"""`--config FILE`: options by name, the command line wins, and a run's own settings can be read again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.conftest import metrics, weights
from vidllava.cli import main

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning-rte: 1", "learning-rte: is no option of this command (did you mean learning-rate?)"),
        ("lerning_rate: 1", "lerning_rate: is no option of this command (did you mean learning-rate?)"),
        ("zzz: 1", "zzz: is no option of this command (see vidllava finetune --help)"),
        ("config: other.yaml", "config: is no option of this command"),
        ("max-steps: 1\nmax_steps: 2", "max_steps: is given twice, with - and with _"),
        ("max-steps: {a: 1}", "max-steps: cannot be {'a': 1}"),
        ("- 1\n- 2", "holds no options"),
        ("a: [", "is no YAML"),
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

    from vidllava.cli.main import app

    assert main.run(["finetune", "--config", str(config), *WORDS]) == 0
    command = typer.main.get_command(app).commands["finetune"]  # type: ignore[attr-defined]
    names = {parameter.name for parameter in command.params if parameter.param_type_name == "option"}
    of_one_start = {"config", "output_dir", "overwrite_output_dir", "resume_from_checkpoint", "allow_changes"}
    saved = set(json.loads((tmp_path / "out" / "settings.json").read_text()))
    assert saved == names - of_one_start - {"quiet", "verbose", "help"}
