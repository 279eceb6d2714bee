"""``--config FILE``: options from a file, by the names that they have on the command line.

    learning-rate: 1.0e-4          # or learning_rate
    data: [pictures.json, clips.jsonl]
    freeze: [vision]

What the command line or the environment says wins, also over another way to say the same (`--fps` over
`num-frames`). Of a run's own settings.json what was derived (a rate, the length) is derived anew. A name
that is not an option is an error: a slip of the pen must not be a run with another setting.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from vidllava.errors import UsageError

# Of one start of the command, not of what is trained.
_NOT_HERE = ("config", "help")
_DERIVED = "derived"
# What of the file gives way to another option on the command line: one that says the same in another way, or
# that it belongs to.
_GIVES_WAY_TO = {
    "max_steps": "num_train_epochs",
    "warmup_steps": "warmup_ratio",
    "num_frames": "fps",
    "fps": "num_frames",
    "bf16": "fp16",
    "fp16": "bf16",
    "data_weights": "data",
}


def take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command's options: an eager callback. Raises UsageError."""
    if path is None or context.resilient_parsing:
        return path
    options = {
        str(parameter.name): parameter
        for parameter in context.command.params
        if parameter.param_type_name == "option" and parameter.name not in _NOT_HERE
    }
    values: dict[str, Any] = {}
    for key, value in _as_given(_read(path), path).items():
        name = str(key).replace("-", "_")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
            hint = f"did you mean {near[0].replace('_', '-')}?" if near else "see vidllava finetune --help"
            raise UsageError(f"{path}: {key}", "is not an option of this command", hint)
        if name in values:
            raise UsageError(f"{path}: {key}", "is given twice, with - and with _", "leave out one of them")
        if value is not None:
            values[name] = _plain(
                value, f"{path}: {key}", many=bool(getattr(options[name], "multiple", False))
            )
    for name in set(_GIVES_WAY_TO) & set(values):
        values[name] = _Unless(
            context, _GIVES_WAY_TO[name], values[name], getattr(options[name], "default", None)
        )
    context.default_map = {**(context.default_map or {}), **values}
    return path


@dataclass(frozen=True)
class _Unless:
    """A value of the file, or the option's `default` where the command line has the option `other`.

    Options that were given are read before those that were not, so they are known when this is called.
    """

    context: typer.Context
    other: str
    value: Any
    default: Any

    def __call__(self) -> Any:
        source = self.context.get_parameter_source(self.other)
        return self.default if source is not None and source.name == "COMMANDLINE" else self.value


def _as_given(content: dict[Any, Any], path: Path) -> dict[Any, Any]:
    """A run's settings.json as it was given: what was `derived` follows anew from what it hangs on.

    A derived value that was edited in the file since counts as given.
    """
    values = {key: value for key, value in content.items() if key != _DERIVED}
    derived = content.get(_DERIVED) or {}
    if not isinstance(derived, dict):
        raise UsageError(f"{path}: {_DERIVED}", "is not a table of options", "omit it")
    for name, origin in derived.items():
        if not isinstance(origin, dict) or not {"given", "became"} <= set(origin):
            raise UsageError(f"{path}: {_DERIVED}: {name}", "needs `given` and `became`", "omit it")
        if name in values and values[name] == origin["became"]:
            values[name] = origin["given"]
    return values


def _read(path: Path) -> dict[Any, Any]:
    # Not at the top: only those who have such a file need it.
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("--config", f"{path}: no such file", "check the path") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise UsageError(
            "--config", f"{path} cannot be read: {fault}", "check that it is UTF-8 text that may be read"
        ) from None
    except (yaml.YAMLError, RecursionError) as fault:
        raise UsageError(
            "--config",
            f"{path} is not YAML: {' '.join(str(fault).split())}",
            "lines such as `max-steps: 200`",
        ) from None
    if not isinstance(content, dict):
        raise UsageError("--config", f"{path} holds no options", "lines such as `max-steps: 200`")
    return content


def _plain(value: Any, thing: str, *, many: bool) -> Any:
    """A value as the command line would spell it. Raises UsageError for one that it could not."""
    if isinstance(value, list) and all(isinstance(one, str | int | float) for one in value):
        return [str(one) for one in value] if many else ",".join(str(one) for one in value)
    if isinstance(value, bool):
        return value
    if isinstance(value, str | int | float):
        return [str(value)] if many else str(value)
    raise UsageError(thing, f"cannot be {value!r}", "a word, a number, true, false, or a list of them")
