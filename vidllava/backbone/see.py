"""Encoding of planned media while they are decoded: chunks, repeated and known frames, wall times.

    encoded = see(backbone, question.items, clock)
    encoded.features, encoded.visuals[0].frames

Every visual goes through the tower on its own, in chunks of the same bounds whether frames come early or
late: its features depend neither on what stands beside it nor on how fast it was decoded.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange

from vidllava.backbone.feature_cache import Entry, FeatureCache
from vidllava.backbone.model import Backbone
from vidllava.backbone.splice import FeaturesAt
from vidllava.backbone.tower import grids_per_chunk
from vidllava.media.frames import FrameBatch, FramePlan, FrameSize
from vidllava.media.pixels import mean_colour, padded_square, picture_tiles
from vidllava.media.sampler import IN_PROCESS, Sampler
from vidllava.prompting.layout import VisualLayout
from vidllava.visuals.planner import ModelSettings
from vidllava.visuals.question import MediaItem

Span = tuple[float, float]


class StageClock:
    """Wall seconds per stage, with the device idle at both ends of each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, list[Span]] = {}

    @contextmanager
    def stage(self, name: str, *, waits: bool = True) -> Iterator[None]:
        """Add the time of the block to stage ``name``. ``waits`` False: without waiting for the device."""
        self._wait(waits)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait(waits)
            self._spans.setdefault(name, []).append((start, time.perf_counter()))

    @property
    def seconds(self) -> dict[str, float]:
        """Per stage, in the order in which they began."""
        return {name: sum(end - start for start, end in spans) for name, spans in self._spans.items()}

    def overlap(self, one: str, other: str) -> float:
        """Seconds during which both stages ran."""
        return overlap(self._spans.get(one, ()), self._spans.get(other, ()))

    def _wait(self, wanted: bool) -> None:
        if wanted and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def overlap(one: Sequence[Span], other: Sequence[Span]) -> float:
    """Seconds in both; the spans of each do not overlap among themselves."""
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other)


Picture = npt.NDArray[np.uint8]


class Abandoned(BaseException):
    """Nobody waits for these frames any more: the decoder's thread is to end."""


@dataclass(frozen=True)
class Arrived:
    """The frames from the place that was waited for on: uint8 [n, S, S, 3], a copy."""

    pass_number: int
    start: int
    frames: Picture
    batch: FrameBatch | None
    """The whole batch, once decoding is done; ``frames`` are its last ones then."""


class Relay:
    """One clip's frames. ``hear``, ``finish`` and ``fail`` are the decoder's side, ``wait`` the tower's."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pass_number = 0
        self._final: set[int] = set()
        self._pixels: Picture | None = None
        self._batch: FrameBatch | None = None
        self._fault: BaseException | None = None
        self._abandoned = False

    def receive(self, place: int | None, pixels: Picture) -> None:
        """Frame ``place`` is final in ``pixels``; None: all so far is void. Raises Abandoned."""
        with self._changed:
            if self._abandoned:
                raise Abandoned
            if place is None:
                self._pass_number += 1
                self._final.clear()
            else:
                self._final.add(place)
            self._pixels = pixels
            self._changed.notify()

    def finish(self, batch: FrameBatch) -> None:
        """Decoding is done."""
        with self._changed:
            self._batch = batch
            self._changed.notify()

    def fail(self, fault: BaseException) -> None:
        """Decoding ended with ``fault``, which ``wait`` raises."""
        with self._changed:
            self._fault = fault
            self._changed.notify()

    def abandon(self) -> None:
        """The decoder's next report ends it."""
        with self._changed:
            self._abandoned = True

    def wait(self, pass_number: int, start: int) -> Arrived:
        """Block until frame ``start`` of pass ``pass_number`` is final, another pass began, or all is done.

        Frames are copied before the decoder can write over them: it reports a void under the same lock.
        """
        with self._changed:
            while True:
                if self._fault is not None:
                    raise self._fault
                if self._pass_number != pass_number:
                    start = 0
                if self._batch is not None:
                    return Arrived(self._pass_number, start, self._batch.pixels[start:], self._batch)
                end = start
                while end in self._final:
                    end += 1
                if end > start or self._pass_number != pass_number:
                    frames = self._pixels[start:end].copy() if self._pixels is not None else _NONE
                    return Arrived(self._pass_number, start, frames, None)
                self._changed.wait()


_NONE = np.empty((0, 0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class EncodedVisual:
    """One visual as the language model reads it, and what is known of how it came about."""

    layout: VisualLayout
    entry: Entry = field(repr=False)
    frames: FramePlan | None
    """The frames really decoded; None for a picture."""
    source: str
    """Where the features are from: ``tower``, ``memory`` or ``disk``."""
    pixels: torch.Tensor | None = field(default=None, repr=False)
    """uint8 [num_grids, 3, S, S]: what the tower read, where it was asked for."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: damage, fall-backs."""
        return self.entry.notes

    @property
    def num_repeated(self) -> int:
        """Grids whose features are those of an earlier one with the same pixels."""
        source = self.entry.source
        return len(source) - len(set(source))


@dataclass(frozen=True, eq=False)
class EncodedVisuals:
    """All visuals of a prompt, and the ``features`` [sum of num_grids * cells, hidden] of their grids."""

    visuals: tuple[EncodedVisual, ...]
    features: torch.Tensor = field(repr=False)


def _spread(entry: Entry, cells: int) -> torch.Tensor:
    features = entry.features
    if features.shape[0] == len(entry.source) * cells:
        return features
    chosen = torch.tensor(entry.source, device=features.device)
    return features.view(-1, cells, features.shape[1])[chosen].flatten(0, 1)


@torch.inference_mode()
def see(
    backbone: Backbone,
    items: Sequence[MediaItem],
    clock: StageClock,
    *,
    sampler: Sampler = IN_PROCESS,
    cache: FeatureCache | None = None,
    reuse_frames: bool = True,
    keep_pixels: bool = True,
) -> EncodedVisuals:
    """The features of planned media, in order; stages ``decode``, ``vision`` and ``cache`` of ``clock``.

    ``reuse_frames``: frames with the same pixels after resizing are encoded once. ``keep_pixels``: of what
    the cache knows too, which costs its decoding. Raises MediaError for a file that turns out unusable.
    """
    with clock.stage("cache", waits=False):
        keys = [cache.key(item, reuse_frames=reuse_frames) if cache else None for item in items]
        known = [cache.find(key) if cache and key else None for key in keys]
    wanted = [item for item, hit in zip(items, known, strict=True) if hit is None or keep_pixels]
    seen = []
    with _decoding(wanted, backbone.settings.frame_size, sampler, clock) as relays:
        for item, key, hit in zip(items, keys, known, strict=True):
            if hit is not None and not keep_pixels:
                seen.append(_known(item, *hit))
                continue
            relay = next(relays) if item.picture is None else None
            one = _encode(backbone, item, relay, clock, hit, reuse_frames=reuse_frames)
            if cache and key and hit is None:
                with clock.stage("cache"):
                    cache.keep(key, one.entry)
            seen.append(one if keep_pixels else _without_pixels(one))
    features = [_spread(one.entry, backbone.settings.side**2) for one in seen]
    empty = backbone.encode(torch.empty(0, 3, 1, 1, dtype=torch.uint8), at="projected")
    return EncodedVisuals(tuple(seen), torch.cat(features) if features else empty)


def _known(item: MediaItem, entry: Entry, source: str, pixels: torch.Tensor | None = None) -> EncodedVisual:
    plan = item.plan
    if plan is not None and entry.indices is not None and entry.timestamps_seconds is not None:
        plan = replace(plan, indices=entry.indices, timestamps_seconds=entry.timestamps_seconds)
    return EncodedVisual(item.layout, entry, plan, source, pixels)


def _without_pixels(seen: EncodedVisual) -> EncodedVisual:
    return EncodedVisual(seen.layout, seen.entry, seen.frames, seen.source)


@contextmanager
def _decoding(
    items: Sequence[MediaItem], size: FrameSize, sampler: Sampler, clock: StageClock
) -> Iterator[Iterator[Relay]]:
    """One thread decodes the clips among ``items``, one after the other; a relay for each, in order."""
    clips = [item for item in items if item.picture is None]
    relays = [Relay() for _ in clips]

    def decode() -> None:
        for item, relay in zip(clips, relays, strict=True):
            assert item.info is not None  # a planned item is a clip or a picture
            assert item.plan is not None
            try:
                with clock.stage("decode", waits=False):
                    batch = sampler.decode(
                        item.info,
                        item.plan,
                        backend=item.backend or "pyav",
                        size=size,
                        on_ready=relay.receive,
                    )
                relay.finish(batch)
            except Abandoned:
                return
            except BaseException as fault:
                for waiting in relays:
                    waiting.fail(fault)
                return

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    if clips:
        thread.start()
    try:
        yield iter(relays)
    finally:
        for relay in relays:
            relay.abandon()


def _encode(
    backbone: Backbone,
    item: MediaItem,
    relay: Relay | None,
    clock: StageClock,
    hit: tuple[Entry, str] | None,
    *,
    reuse_frames: bool,
) -> EncodedVisual:
    """What the tower makes of one item; of one that the cache knows (``hit``), the pixels alone."""
    at = backbone.pools_at(item.layout)
    if relay is None:
        with clock.stage("decode", waits=False):
            tiles = _picture_pixels(item, backbone.settings)
        if hit is not None:
            return _known(item, *hit, tiles)
        chunks = _Chunks(backbone, at, reuse_frames=reuse_frames)
        with clock.stage("vision"):
            chunks.add(tiles)
            features, source = chunks.finish()
        return EncodedVisual(item.layout, Entry(features, source, None, None, ()), None, "tower", tiles)
    if hit is not None:
        return _known(item, *hit, _channels_first(_wait_for_all(relay).pixels))
    batch, features, source = _encode_frames(backbone, at, relay, clock, reuse_frames=reuse_frames)
    plan = batch.plan
    entry = Entry(features, source, plan.indices, plan.timestamps_seconds, batch.notes)
    return EncodedVisual(item.layout, entry, plan, "tower", _channels_first(batch.pixels))


def _wait_for_all(relay: Relay) -> FrameBatch:
    arrived = relay.wait(0, 0)
    while arrived.batch is None:
        arrived = relay.wait(arrived.pass_number, arrived.start + len(arrived.frames))
    return arrived.batch


def _encode_frames(
    backbone: Backbone, at: FeaturesAt, relay: Relay, clock: StageClock, *, reuse_frames: bool
) -> tuple[FrameBatch, torch.Tensor, tuple[int, ...]]:
    """Encode whole chunks as soon as their frames are final; all over again where a decoder starts again."""
    chunks = _Chunks(backbone, at, reuse_frames=reuse_frames)
    pass_number, start = 0, 0
    while True:
        arrived = relay.wait(pass_number, start)
        if arrived.pass_number != pass_number:
            chunks = _Chunks(backbone, at, reuse_frames=reuse_frames)
        pass_number, start = arrived.pass_number, arrived.start + len(arrived.frames)
        with clock.stage("vision"):
            if len(arrived.frames):
                chunks.add(_channels_first(arrived.frames))
            if arrived.batch is not None:
                features, source = chunks.finish()
                return arrived.batch, features, source


def _channels_first(frames: np.ndarray) -> torch.Tensor:
    return rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous()


def _picture_pixels(item: MediaItem, settings: ModelSettings) -> torch.Tensor:
    assert item.picture is not None  # a planned item is a clip or a picture
    if item.layout.kind == "pictures":
        return padded_square(item.picture, settings.image_size, mean_colour(settings.image_mean))
    return picture_tiles(item.picture, item.pinpoints, settings.image_size)


class _Chunks:
    """The tower, fed grid by grid. Chunks are cut from the distinct grids in their order and from nothing
    else, so they are the same however the grids arrive."""

    def __init__(self, backbone: Backbone, at: FeaturesAt, *, reuse_frames: bool) -> None:
        self._backbone, self._at = backbone, at
        self._reuse = reuse_frames
        self._step = grids_per_chunk(backbone.settings)
        self._pending: list[torch.Tensor] = []
        self._features: list[torch.Tensor] = []
        self._source: list[int] = []
        self._known: dict[bytes, int] = {}
        self._num_distinct = 0

    def add(self, pixels: torch.Tensor) -> None:
        """More grids, uint8 [n, 3, S, S]; whole chunks are encoded at once."""
        for grid in pixels:
            name = hashlib.blake2b(grid.numpy().data, digest_size=32).digest() if self._reuse else b""
            place = self._known.get(name)
            if place is None:
                place = self._num_distinct
                self._num_distinct += 1
                self._pending.append(grid)
                if self._reuse:
                    self._known[name] = place
            self._source.append(place)
            if len(self._pending) == self._step:
                self._encode()

    def finish(self) -> tuple[torch.Tensor, tuple[int, ...]]:
        """Features [num_distinct * cells, hidden], and for each grid the number of its distinct one."""
        if self._pending:
            self._encode()
        return torch.cat(self._features), tuple(self._source)

    def _encode(self) -> None:
        self._features.append(self._backbone.encode(torch.stack(self._pending), at=self._at))
        self._pending = []
