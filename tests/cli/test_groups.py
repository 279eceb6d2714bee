"""`spread`: options written once as a dataclass, taken by many commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from vidllava.cli.options import spread


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.")] = 3
    tall: Annotated[bool, typer.Option("--tall")] = False


def _app() -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @spread
    def draw(name: Annotated[str, typer.Argument()], *, size: Size, twice: bool = False) -> None:
        """Draw it."""
        print(name, size, twice)

    return app


def test_the_fields_of_a_group_are_options_of_the_command():
    done = CliRunner().invoke(_app(), ["cat", "--tall", "--width", "5", "--twice"])
    assert done.output.strip() == f"cat {Size(width=5, tall=True)} True"


def test_a_field_that_is_not_given_keeps_its_default():
    assert CliRunner().invoke(_app(), ["cat"]).output.strip() == f"cat {Size()} False"


def test_the_help_shows_the_fields_and_the_commands_own_words():
    shown = CliRunner().invoke(_app(), ["--help"]).output
    assert "How wide." in shown
    assert "Draw it." in shown
    assert "--size" not in shown


def test_an_unknown_option_is_still_an_error():
    assert CliRunner().invoke(_app(), ["cat", "--size", "3"]).exit_code == 2
