"""Benchmarks, one module each: found by scanning this folder, or added from outside.

    tasks()                     # of every module here, of the plug-ins (`vidllava.registry`), the registered
    register(Task("mine", recognises, read))

A module has ``TASKS``, a tuple of ``Task``: most hold one, some a variant too.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from vidllava import registry
from vidllava.errors import UsageError
from vidllava.evaluation.item import Task

_registered: list[Task] = []


def tasks() -> tuple[Task, ...]:
    """Every data set, in the order in which they are asked whether a record is theirs: general ones last.

    Raises UsageError for a name that two of them have, and for a plug-in that holds none.
    """
    found = [*_tasks_of(registry.members(__name__, "TASKS")), *_registered]
    names = [task.name for task in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError("benchmarks", f"two benchmarks have the name {name}", "rename one of them")
    return tuple(sorted(found, key=lambda task: task.is_general))


def register(task: Task) -> None:
    """Add a data set for this process. Raises UsageError where its name is taken."""
    if any(task.name == known.name for known in tasks()):
        raise UsageError(f"register({task.name!r})", "there is a benchmark of this name", "another name")
    _registered.append(task)


def _tasks_of(modules: Iterable[ModuleType]) -> list[Task]:
    found: list[Task] = []
    for module in modules:
        own = getattr(module, "TASKS", None)
        if not isinstance(own, tuple) or not all(isinstance(task, Task) for task in own):
            what = "has no tuple TASKS of benchmarks"
            raise UsageError(str(module.__file__), what, "TASKS = (Task(...),)")
        found += own
    return found
