"""Options that several commands share, explained once; and how a dataclass becomes options of a command.

Values are checked where they are used, by the module that knows their bounds; here stand only names and help.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from vidllava.cli.words import text_option
from vidllava.errors import UsageError
from vidllava.settings import KEY, TEXT, flag_of, hints_of

_FRAMES, _TOKENS, _MODEL, _ANSWER, _OUTPUT = "Frames", "Tokens", "Model", "Answer", "Output"


NoReuseFrames = Annotated[
    bool,
    typer.Option(
        "--no-reuse-frames",
        help="Encode every frame, also one with the very pixels of an earlier one.",
        rich_help_panel=_FRAMES,
    ),
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Neither use nor keep what the vision tower made of a clip (see vidllava cache).",
        rich_help_panel=_FRAMES,
    ),
]

# The question by name: every argument is a medium then.
QUESTION_FLAGS, QUESTION_METAVAR = ("--question", "-p"), "TEXT|@FILE"

# Model: which weights, on which machine?
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="VIDLLAVA_MODEL",
        help="A name (see models list), a hub id or a folder. auto: OneVision 0.5B if here, else nano.",
        rich_help_panel=_MODEL,
    ),
]
Download = Annotated[
    bool,
    typer.Option(
        "--download", help="Fetch the model if it is not here; auto: OneVision 0.5B.", rich_help_panel=_MODEL
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of a hub model.", rich_help_panel=_MODEL)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=_MODEL)]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="Number format of the weights.", rich_help_panel=_MODEL),
]
Attention = Annotated[
    str,
    typer.Option(
        "--attn-implementation", help="sdpa, eager, or what transformers offers.", rich_help_panel=_MODEL
    ),
]
PoolFirst = Annotated[
    bool,
    typer.Option(
        "--pool-first",
        help="Pool before the projector's last layer: less work, the same answer to rounding.",
        rich_help_panel=_MODEL,
    ),
]

# Output: where does what go?
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=_OUTPUT)]
NoStream = Annotated[
    bool,
    typer.Option(
        "--no-stream", help="Print the answer at once, also on a terminal.", rich_help_panel=_OUTPUT
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr.", rich_help_panel=_OUTPUT)
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Also the plan, the decisions and the seconds.", rich_help_panel=_OUTPUT
    ),
]


def refuse_before(context: typer.Context, as_json: bool) -> None:
    """Raises UsageError where ``--json`` stands before the name of a command, which would not see it."""
    if as_json:
        name = context.invoked_subcommand
        raise UsageError("--json", f"stands before {name}", f"vidllava {context.info_name} {name} --json")


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` with a parameter for each field of the dataclasses that it takes.

    A field is an option by its annotation, or by what ``vidllava.settings.setting`` says of it.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        parameters += _fields(groups[name]) if name in groups else [parameter.replace(annotation=hints[name])]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**_values(group, given))
        command(**given)

    # Resolved: typer would look their names up in this file.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    keyword = inspect.Parameter.KEYWORD_ONLY
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=keyword) for parameter in parameters]
    )
    del run.__wrapped__  # or its signature would be read
    return run


def _values(group: Any, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a group for what the command line gave, taken out of ``given``."""
    found, hints = {}, hints_of(group)
    for field in fields(group):
        value, facts = given.pop(field.name), field.metadata.get(KEY)
        found[field.name] = value if facts is None else _value(hints[field.name], facts, field.name, value)
    return found


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found: list[inspect.Parameter] = []
    for field in fields(group):
        hint, default = hints[field.name], field.default
        if facts := field.metadata.get(KEY):
            hint = _option(field.name, hint, facts)
            if isinstance(default, tuple):
                default = ",".join(default) or None
        default = inspect.Parameter.empty if default is MISSING else default
        found.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
        )
    return found


def _option(name: str, hint: Any, facts: dict[str, Any]) -> Any:
    """What typer is told of a setting. A list of words is one text with commas; a switch has no opposite."""
    many = _is_list(hint)
    if facts["choices"]:
        hint = Literal[facts["choices"]] | None
    if facts["parse"] is not None and type(None) not in get_args(hint):
        hint = str  # what the parser is given; typer takes no other union
    return Annotated[str | None if many else hint, _told(name, hint, facts)]


def _is_list(hint: Any) -> bool:
    return tuple in (get_origin(hint), *map(get_origin, get_args(hint)))


def _told(name: str, hint: Any, facts: dict[str, Any]) -> Any:
    return typer.Option(
        *(facts["flags"] or ((flag_of(name),) if hint is bool else ())),
        help=facts["help"] or None,
        rich_help_panel=facts["panel"],
        metavar=facts["metavar"],
        parser=facts["parse"],
    )


def option_of(settings: Any, name: str) -> Any:
    """The option of one field, for a command that takes no other of them."""
    (field,) = (field for field in fields(settings) if field.name == name)
    return _told(name, hints_of(settings)[name], dict(field.metadata[KEY]))


def _value(hint: Any, facts: Mapping[str, Any], name: str, given: Any) -> Any:
    """A setting's value for what the command line gave; a list that must be one is empty for nothing."""
    flag = (facts["flags"] or (flag_of(name),))[0]
    if given is None:
        return () if get_origin(hint) is tuple else None
    if facts["metavar"] == TEXT:
        return text_option(flag, given)
    if _is_list(hint) and facts["parse"] is None:
        return () if given.strip() == facts["none"] else split_words(flag, given)
    return None if facts["none"] is not None and given == type(given)(facts["none"]) else given


def split_words(flag: str, text: str | None) -> tuple[str, ...]:
    """The words of a list with commas. Raises UsageError for an empty one."""
    words = tuple(word.strip() for word in (text or "").split(","))
    if text is not None and not all(words):
        raise UsageError(flag, f"{text!r} is not a list of words with commas", "for example a,b")
    return words if text is not None else ()
