"""The media of a command, ready to be looked into: copied where they are no files, and a worker started.

with open_media(["clip.mp4", "-"], limits) as intake:
    plan_question(intake.paths, ..., sampler=intake.sampler)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vidllava.errors import VidllavaError
from vidllava.media.limits import Limits
from vidllava.media.sources import URL_SECONDS, Spool

if TYPE_CHECKING:
    from vidllava.files.cache_folder import CacheFolder
    from vidllava.media.frames import FrameSize
    from vidllava.media.worker import WorkerSampler
    from vidllava.visuals.question import Question


@dataclass(frozen=True)
class Intake:
    """Local paths, who opens them, and what the user called them."""

    paths: list[str]
    sampler: WorkerSampler
    shown: Callable[[str], str]
    """From a path to the user's name for it."""

    def named(self, question: Question) -> Question:
        """The question, with its media as the user called them."""
        items = tuple(replace(item, path=self.shown(item.path)) for item in question.items)
        return replace(question, items=items)

    def begin(self, question: Question, size: FrameSize, folder: CacheFolder | None) -> None:
        """Let the worker decode from now on, while this process loads torch and the model."""
        from vidllava.files.identity import FileStamp

        for item in question.items:
            if item.info is None or item.plan is None or os.path.isdir(item.path):
                continue
            # A file that was read for the cache before may need no decoding at all.
            if folder is None or folder.read(FileStamp.of(item.path).memo) is None:
                self.sampler.begin(item.info, item.plan, backend=item.backend or "pyav", size=size)


@contextmanager
def open_media(
    media: Sequence[str], limits: Limits, *, allow_url: bool = False, url_seconds: float = URL_SECONDS
) -> Iterator[Intake]:
    """Raises what ``Spool.local`` raises; at the end copies are deleted and the worker is killed.

    A fault of a copy that passes through names what was given.
    """
    from vidllava.media.wire import WorkerProcess

    with Spool(limits, allow_url=allow_url, url_seconds=url_seconds) as spool:
        process = WorkerProcess()
        try:
            # This takes a while, in which the child loads the same.
            from vidllava.media.worker import WorkerSampler
        except BaseException:
            process.end()
            raise
        with WorkerSampler(limits, process) as sampler:
            try:
                yield Intake([spool.local(name) for name in media], sampler, spool.shown)
            except VidllavaError as fault:
                fault.thing = spool.shown(fault.thing)  # a copy's path means nothing to whoever gave a name
                raise
