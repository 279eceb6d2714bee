"""Benchmarks, one module each: found by scanning this folder, or added from outside.

    tasks()                     # of every module here, of VIDLLAVA_BENCHMARKS, and the registered ones
    register(Task("mine", recognises, read))

A module has ``TASKS``, a tuple of ``Task``: most hold one, some a variant too. VIDLLAVA_BENCHMARKS names such
modules outside of this package, files or folders of them, separated as in PATH.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from vidllava.errors import UsageError
from vidllava.evaluation.item import Task

VARIABLE = "VIDLLAVA_BENCHMARKS"
_HINT = "Python files, or folders of them, each with a tuple TASKS"
_registered: list[Task] = []


def tasks() -> tuple[Task, ...]:
    """Every data set, in the order in which they are asked whether a record is theirs: general ones last.

    Raises UsageError for a name that two of them have, and for a file of VIDLLAVA_BENCHMARKS that is none.
    """
    found = [*_scanned(), *_added(os.environ.get(VARIABLE, "")), *_registered]
    names = [task.name for task in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(VARIABLE, f"two benchmarks have the name {name}", "rename one of them")
    return tuple(sorted(found, key=lambda task: task.is_general))


def register(task: Task) -> None:
    """Add a data set for this process. Raises UsageError where its name is taken."""
    if any(task.name == known.name for known in tasks()):
        raise UsageError(f"register({task.name!r})", "there is a benchmark of this name", "another name")
    _registered.append(task)


@lru_cache(maxsize=1)
def _scanned() -> tuple[Task, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(_tasks_of(importlib.import_module(f"{__name__}.{name}") for name in names))


@lru_cache(maxsize=4)
def _added(listed: str) -> tuple[Task, ...]:
    """Of the modules that the environment names."""
    files: list[Path] = []
    for name in filter(None, listed.split(os.pathsep)):
        path = Path(name).expanduser()
        if not path.exists():
            raise UsageError(f"{VARIABLE}={name}", "no such file or folder", _HINT)
        files += sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
    return tuple(_tasks_of(map(_loaded, files)))


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"vidllava_benchmark_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{VARIABLE}: {path}", "is not a Python file", _HINT)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as fault:
        what = f"cannot be imported: {type(fault).__name__}: {fault}"
        raise UsageError(f"{VARIABLE}: {path}", what, _HINT) from fault
    return module


def _tasks_of(modules: Iterable[ModuleType]) -> list[Task]:
    found: list[Task] = []
    for module in modules:
        own = getattr(module, "TASKS", None)
        if not isinstance(own, tuple) or not all(isinstance(task, Task) for task in own):
            raise UsageError(f"{VARIABLE}: {module.__file__}", "has no tuple TASKS of benchmarks", _HINT)
        found += own
    return found
