"""A setting is stated once: its field is the flag and the check of library and command alike."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest
import typer

from vidllava.cli.main import program
from vidllava.cli.options import spread
from vidllava.errors import UsageError
from vidllava.settings import KEY, check, flag_of, setting, words_of
from vidllava.training.settings import TrainingSettings
from vidllava.visuals.options import AskOptions, GenerateOptions


def options_of(*path: str) -> dict[str, list[str]]:
    """The flags of a command by parameter name."""
    command = typer.main.get_command(program())
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {str(one.name): list(one.opts) for one in command.params}


@pytest.mark.parametrize(
    ("command", "settings"),
    [("finetune", TrainingSettings), ("ask", AskOptions), ("ask", GenerateOptions), ("eval", AskOptions)],
)
def test_every_field_is_an_option_of_its_command(command: str, settings: type):
    found = options_of(command)
    for field in fields(settings):
        facts = field.metadata[KEY]
        flags = [flag.partition("/")[0] for flag in facts["flags"] or (flag_of(field.name),)]
        assert found[field.name] == flags, field.name


def test_a_number_beyond_its_bounds_is_refused_by_the_library_as_by_the_command(run):
    checked = 0
    for field in fields(TrainingSettings):
        least = field.metadata[KEY]["least"]
        if least is None:
            continue
        least = type(field.default)(least) if isinstance(field.default, float) else least
        with pytest.raises(UsageError) as fault:
            TrainingSettings(**{field.name: least - 1})
        assert fault.value.thing == flag_of(field.name)
        checked += 1
        if checked % 8 == 0:  # the command itself, now and then
            ended = run(
                "finetune", "--data", "x.json", "--output-dir", "out", f"{flag_of(field.name)}={least - 1}"
            )
            assert (ended.code, ended.error.splitlines()[-1]) == (2, f"error: {fault.value}")
    assert checked > 25


def test_one_new_field_is_a_flag_a_default_and_a_check(capsys: pytest.CaptureFixture[str]):
    @dataclass(frozen=True, kw_only=True)
    class Mine:
        strength: float = setting(0.5, "How strong.", panel="Mine", least=0, most=1)
        parts: tuple[str, ...] = setting(
            ("a", "b"), "Which parts.", panel="Mine", metavar="PARTS", none="none"
        )
        loud: bool = setting(False, "Loudly.", panel="Mine")

        def __post_init__(self) -> None:
            check(self, "between silence and all")

    taken: list[Mine] = []

    def command(mine) -> None:
        taken.append(mine)

    command.__annotations__ = {"mine": Mine}
    mine = typer.Typer()
    mine.command()(spread(command))
    for words in ([], ["--strength", "1", "--parts", "b", "--loud"], ["--parts", "none"]):
        mine(words, standalone_mode=False)
    assert taken == [Mine(), Mine(strength=1, parts=("b",), loud=True), Mine(parts=())]
    with pytest.raises(UsageError, match=r"--strength: must be between 0 and 1, got 2\.0"):
        mine(["--strength", "2"], standalone_mode=False)
    with pytest.raises(SystemExit):
        mine(["--help"])
    assert "[default: a,b]" in capsys.readouterr().out


def test_words_are_those_of_the_type():
    hints = {field.name: field for field in fields(TrainingSettings)}
    assert "mix" in hints
    assert words_of(float) == ()
    with pytest.raises(UsageError, match=r"--mix: 'sideways' is unknown \(one of in-batch, "):
        TrainingSettings(mix="sideways")  # type: ignore[arg-type]
