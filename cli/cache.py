"""``vidllava cache``: where features and what is known of data sets lie, how much that is; clear it."""

from __future__ import annotations

from typing import Any

import typer

from vidllava.cli import options
from vidllava.cli.console import Console
from vidllava.files.cache_folder import CacheFolder, Usage

app = typer.Typer()


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: options.Json = False) -> None:
    """Say where features are kept and how much they take; clear them.

    With them the next question about a clip need not decode it. The headers
    and text lengths of data sets lie there too, for finetune and data. Entries
    are features, the size is of all. The folder is VIDLLAVA_CACHE, else vidllava
    in XDG_CACHE_HOME or ~/.cache. VIDLLAVA_CACHE_LIMIT bounds it (500M, 2G, ...;
    2G by default, 0 keeps nothing); what was not used for longest makes room.

    \b
    vidllava cache
    vidllava cache clear
    """
    if context.invoked_subcommand is not None:
        options.refuse_before(context, as_json)
        return
    folder = CacheFolder.of_environment()
    usage = folder.usage()
    if as_json:
        limit = {"limit_bytes": folder.limit_bytes}
        Console().json(_as_json(folder, usage) | limit, indent=2)
        return
    rows = [
        ("folder", folder.path),
        ("entries", usage.num_entries),
        ("size", _megabytes(usage.num_bytes)),
        ("limit", _megabytes(folder.limit_bytes)),
    ]
    Console().table(("what", "value"), rows)


@app.command("clear")
def clear(as_json: options.Json = False) -> None:
    """Delete every entry. A question that is being answered meanwhile is answered all the same.

    vidllava cache clear
    """
    from vidllava.data.media_index import empty

    folder = CacheFolder.of_environment()
    before = folder.usage()
    deleted = folder.clear()
    empty(folder)
    usage = Usage(deleted.num_entries, max(0, before.num_bytes - folder.usage().num_bytes))
    if as_json:
        Console().json(_as_json(folder, usage), indent=2)
        return
    Console().write(f"deleted {usage.num_entries} entries, {_megabytes(usage.num_bytes)}: {folder.path}")


def _as_json(folder: CacheFolder, usage: Usage) -> dict[str, Any]:
    return {"folder": str(folder.path), "entries": usage.num_entries, "bytes": usage.num_bytes}


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
