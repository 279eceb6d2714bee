"""docs/cli.md is what ``--help`` says, word for word: ``make docs`` writes it, this test compares it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
COMMANDS = (
    "",
    "ask",
    "chat",
    "frames",
    "eval",
    "finetune",
    "bench",
    "bench kernels",
    "bench decode",
    "bench ask",
    "bench frames",
    "data",
    "data check",
    "data stats",
    "models",
    "models list",
    "models where",
    "models pull",
    "models show",
    "models convert",
    "models verify",
    "models export",
    "cache",
    "cache clear",
    "doctor",
)
HEAD = "# Every command and option\n\nWritten by `make docs` from `--help`; do not edit.\n"
# The page must not depend on the terminal, the colours or the settings of whoever writes it.
PLAIN = {
    "TERMINAL_WIDTH": "110",
    "COLUMNS": "110",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "_TYPER_FORCE_DISABLE_TERMINAL": "1",
}


def help_text(command: str) -> str:
    script = Path(sys.executable).with_name("vidllava")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VIDLLAVA_")}
    done = subprocess.run(
        [str(script), *command.split(), "--help"],
        env={**environment, **PLAIN},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def section(command: str) -> str:
    return f"\n## vidllava {command}".rstrip() + f"\n\n```text\n{help_text(command)}\n```\n"


@pytest.mark.no_model
@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_says_what_help_says(command: str):
    assert section(command) in PAGE.read_text(encoding="utf-8"), "run: make docs"


@pytest.mark.no_model
def test_every_command_has_its_section():
    from vidllava.cli.main import program

    names = {str(command.name) for command in program().registered_commands}
    for group in program().registered_groups:
        assert group.typer_instance is not None
        names |= {f"{group.name} {command.name}" for command in group.typer_instance.registered_commands}
    assert names < set(COMMANDS)
    assert "cache clear" in names


if __name__ == "__main__":
    PAGE.write_text(HEAD + "".join(section(command) for command in COMMANDS), encoding="utf-8")
