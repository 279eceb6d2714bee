"""``vidllava models``: which models have names, which are here, how to get one, and how to make one whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vidllava.cli import options
from vidllava.cli.console import Console
from vidllava.errors import ModelError, UsageError
from vidllava.models import named_models
from vidllava.models.family import NamedModel

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(help="A name from `vidllava models list`, a hub id or a folder.", metavar="MODEL")
]


@app.callback(invoke_without_command=True)
def alone(context: typer.Context, as_json: options.Json = False) -> None:
    """List models, download one, say where one lies, or make an adapter a whole model.

    Without a command, the list.
    """
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)
    else:
        options.refuse_before(context, as_json)


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """The models that --model knows by name, and whether they are on this machine.

    vidllava models list
    """
    rows = [_row(model) for model in named_models().values()]
    if as_json:
        Console().json(rows, indent=2)
        return
    table = [
        (row["name"], "yes" if row["folder"] else "no", row["hub_id"] or "in the package", row["about"])
        for row in rows
    ]
    Console().table(("name", "here", "from", "what it is"), table)


@app.command("where")
def where(model: Name) -> None:
    """Print the folder of a model that is on this machine.

    vidllava models where onevision-0.5b
    """
    from vidllava.backbone.locate import locate

    Console().write(str(locate(model)[1]))


@app.command("pull")
def pull(
    model: Name,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Download a model into the Hugging Face cache, and print its folder.

    vidllava models pull onevision-0.5b
    """
    from vidllava.backbone.locate import locate

    Console().write(str(locate(model, download=True, revision=revision)[1]))


@app.command("export")
def export(
    adapter: Annotated[Path, typer.Argument(help="What `finetune --lora` left.", metavar="FOLDER")],
    output: Annotated[Path, typer.Argument(help="A folder that is not there yet.", metavar="OUT")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Number format of the weights; auto = the base's own."),
    ] = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Merge an adapter into its base: a whole model, which plain from_pretrained loads. Prints its folder.

    vidllava models export out/adapter merged
    """
    from vidllava.backbone.folders import is_adapter
    from vidllava.backbone.locate import locate
    from vidllava.cli import outputs

    if not adapter.is_dir():
        raise ModelError(adapter, "no such folder", "what finetune --lora left")
    if not is_adapter(adapter):
        raise UsageError(adapter, "is not an adapter's folder", "a whole model needs no export")
    if output.exists():
        raise UsageError("OUT", f"{output} exists", "name a folder that is not there yet")
    outputs.check_folder(output.absolute().parent)
    locate(str(adapter))
    from vidllava.backbone.load import export as merge

    merge(adapter, output, dtype=dtype)
    Console(quiet=quiet, carries_on=True).write(str(output))


def _row(model: NamedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "hub_id": model.hub_id,
        "folder": _folder(model),
        "about": model.about,
    }


def _folder(model: NamedModel) -> str | None:
    from vidllava.backbone.folders import cached_folder, nano_folder

    folder: Path | None = nano_folder() if model.hub_id is None else cached_folder(model.hub_id)
    return str(folder) if folder is not None and (folder / "config.json").is_file() else None
