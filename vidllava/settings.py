"""Settings that are stated once: a dataclass field with its help, bounds and words.

    @dataclass(frozen=True, kw_only=True)
    class Settings:
        learning_rate: float = setting(1e-5, "Of the language model.", panel="Learning", least=0)

The field becomes a flag of the command line, a key of a configuration file and a line of docs/cli.md
(`cli.options.spread`), and ``check`` holds its value against its bounds and words wherever it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field, fields
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vidllava.errors import UsageError

KEY, TEXT = "setting", "TEXT|@FILE"
"""The metadata of a field; the metavar of a text that the command line may read from a file."""


def setting(
    default: Any,
    help: str = "",
    *,
    panel: str,
    least: float | None = None,
    most: float = math.inf,
    flags: tuple[str, ...] = (),
    metavar: str | None = None,
    parse: Callable[[str], Any] | None = None,
    choices: tuple[str, ...] = (),
    none: str | None = None,
) -> Any:
    """A dataclass field that is an option too.

    panel       the group of options in which help shows it
    least, most the bounds of a number; without ``least`` the dataclass checks it itself
    flags       other names than ``--field-name``, the first being the usual one
    parse       reads what the command line gives; raises UsageError
    choices     the words of a setting whose words are not known to its type
    none        what the command line says for "nothing" (None, or no words), for example ``0``
    """
    facts = {
        "help": help,
        "panel": panel,
        "least": least,
        "most": most,
        "flags": flags,
        "metavar": metavar,
        "parse": parse,
        "choices": choices,
        "none": none,
    }
    return field(default=default, metadata={KEY: facts})


def flag_of(name: str) -> str:
    """The flag of a field: ``max_steps`` -> ``--max-steps``."""
    return "--" + name.replace("_", "-")


def words_of(kind: Any) -> tuple[str, ...]:
    """The words of a type: of a Literal, of a Literal or None, of a tuple of Literals; none for others."""
    if get_origin(kind) is Literal:
        return tuple(get_args(kind))
    if get_origin(kind) in (Union, UnionType, tuple):
        return next(filter(None, map(words_of, get_args(kind))), ())
    return ()


@cache
def hints_of(settings: Any) -> dict[str, Any]:
    """The types of the fields."""
    return get_type_hints(settings)


def check(settings: Any, hint: str) -> None:
    """Raises UsageError, naming the flag, for a number out of bounds or a word that is not known."""
    hints: dict[str, Any] = hints_of(settings.__class__)
    for one in fields(settings):
        facts, value = one.metadata.get(KEY), getattr(settings, one.name)
        if facts is None or value is None:
            continue
        if facts["least"] is not None:
            _check_number(flag_of(one.name), value, facts["least"], facts["most"], hint)
        if known := words_of(hints[one.name]):
            for word in value if isinstance(value, tuple) else (value,):
                if word not in known:
                    raise UsageError(flag_of(one.name), f"{word!r} is unknown", "one of " + ", ".join(known))


def _check_number(flag: str, value: float, least: float, most: float, hint: str) -> None:
    if not least <= value <= most or value == math.inf:
        bound = f"at least {least:g}" if most == math.inf else f"between {least:g} and {most:g}"
        raise UsageError(flag, f"must be {bound}, got {value}", hint)
