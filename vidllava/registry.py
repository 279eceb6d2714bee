"""Things that are one file each: modules of a folder, and plug-ins from outside, found by what they define.

    members("vidllava.data.formats", "NAME", "KEY", "matches", "parse")

VIDLLAVA_PLUGINS names plug-ins, separated as the paths in PATH are: Python files, folders of them, or modules
that can be imported. A plug-in defines the same names as a built-in module of its kind, and may be of several
kinds at once. It is code that runs with the user's rights: name files that you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import pkgutil
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from vidllava.errors import UsageError

VARIABLE = "VIDLLAVA_PLUGINS"


def members(package: str, *names: str) -> tuple[ModuleType, ...]:
    """The modules of ``package`` in the order of their names, then the plug-ins that define all ``names``.

    Looked up once in a process, since it is asked for every row and clip.
    Raises UsageError for a plug-in that cannot be loaded.
    """
    return _members(package, names, os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=64)
def _members(package: str, names: tuple[str, ...], _plugins: str) -> tuple[ModuleType, ...]:
    found = pkgutil.iter_modules(importlib.import_module(package).__path__)
    built_in = (importlib.import_module(f"{package}.{one.name}") for one in found)
    return (*built_in, *(each for each in plugins() if all(hasattr(each, name) for name in names)))


def names(package: str, *defined: str) -> tuple[str, ...]:
    """What ``members`` would give, by name; a built-in module is named as its file, and is not imported.

    For option lists, made before an error could be told: a plug-in that cannot be loaded is left out.
    """
    spec = importlib.util.find_spec(package)
    assert spec is not None
    built_in = [one.name for one in pkgutil.iter_modules(spec.submodule_search_locations)]
    wanted = ("NAME", *defined)
    try:
        added = [str(each.NAME) for each in plugins() if all(hasattr(each, name) for name in wanted)]
    except UsageError:
        added = []
    return (*built_in, *added)


def sources(package: str) -> tuple[str, ...]:
    """The texts of the built-in modules: for what is told of them before any is imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    files = sorted(file for folder in folders for file in folder.glob("[!_]*.py"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


def plugins() -> tuple[ModuleType, ...]:
    """Every plug-in that VIDLLAVA_PLUGINS names, each loaded once in a process. Raises UsageError."""
    found: list[str] = []
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        path = Path(name).expanduser()
        if path.is_dir():
            found += sorted(str(file) for file in path.glob("[!_]*.py"))
        elif path.suffix == ".py" and not path.is_file():
            raise UsageError(
                f"{VARIABLE} {name}", "no such file or folder", "a Python file, or a folder of them"
            )
        else:
            found.append(str(path))
    return tuple(_plugin(name) for name in found)


@lru_cache(maxsize=64)
def _plugin(name: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = Path(name).resolve(strict=True)
        known_as = f"vidllava_plugin_{path.stem}_{hashlib.blake2b(bytes(path), digest_size=4).hexdigest()}"
        spec = importlib.util.spec_from_file_location(known_as, path)
        assert spec is not None
        assert spec.loader is not None  # a .py file
        module = importlib.util.module_from_spec(spec)
        sys.modules[known_as] = module  # dataclasses look themselves up there
        spec.loader.exec_module(module)
        return module
    except Exception as fault:  # whatever is in the file
        what = f"cannot be loaded: {type(fault).__name__}: {fault}"
        raise UsageError(f"{VARIABLE} {name}", what, "correct it, or unset the variable") from fault
