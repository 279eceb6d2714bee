"""What a set of training samples is: a length, a modality per index, a sample per index.

A source knows nothing of models, tokens or batches. `modality` must be cheap (the order of an epoch is
computed from it for every index before anything is decoded), and `sample` must be a pure function of
(source, index), because resuming a run and replacing a bad sample both rely on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from vidllava.errors import DatasetError

if TYPE_CHECKING:
    from vidllava.media.timeline import SamplingRequest
    from vidllava.prompting.conversation import Turn

Modality = Literal["text", "picture", "pictures", "video"]
MODALITIES: tuple[Modality, ...] = ("text", "picture", "pictures", "video")


class RowFault(Exception):
    """Why one row of a file cannot be used."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Visual:
    """One thing with tokens of its own: a clip, a picture, or one of several pictures.

    kind                "video", "picture" (alone in its sample: AnyRes tiles) or "pictures" (one of several).
    path                a file to decode; one of `path`, `pictures` and `frames` is given.
    pictures            the picture files of a clip, in order.
    pictures_per_second how many of them make a second.
    frames              uint8 [T, H, W, 3]; T = 1 for a picture.
    timestamps_seconds  float64 [T], seconds from the clip's start; may be None for pictures and files.
    request             which frames of a clip on disk; None leaves the choice to the training settings.
    """

    kind: Literal["video", "picture", "pictures"]
    path: str | None = None
    pictures: tuple[str, ...] | None = None
    pictures_per_second: float = 1.0
    frames: np.ndarray | None = None
    timestamps_seconds: np.ndarray | None = None
    request: SamplingRequest | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.path, self.pictures, self.frames)) != 1:
            raise DatasetError(
                f"visual of kind {self.kind}", "needs either a path or frames, not both or none"
            )
        if self.frames is None:
            return
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise DatasetError("frames", f"{self.frames.dtype} {shape}", "give uint8 [T, H, W, 3]")
        if self.kind != "video" and shape[0] != 1:
            raise DatasetError("frames", f"a {self.kind} visual holds one picture, not {shape[0]}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One conversation and what it talks about.

    The turns' text holds one placeholder per visual, `<image>` or `<video>`, in the order of `visuals`;
    where there is none at all, the visuals stand in front of the first user turn. `id` names the sample
    in ledgers and errors and should be unique within its source. `prompt_id` and `dataset` say which
    formatting prompt it has (`prompting.formatting`), where these are asked for.
    """

    id: str
    turns: tuple[Turn, ...]
    visuals: tuple[Visual, ...] = ()
    prompt_id: int | str | None = None
    dataset: str | None = None


class Source(ABC):
    """A set of samples that can be read at any index, in any order, from several processes at once."""

    name: str
    fingerprint: str = ""
    """What a resumed run compares, to see that the data are the same; empty where the name is enough."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def modality(self, index: int) -> Modality:
        """Which kind of sample stands at `index`, without decoding anything."""

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """The sample at `index`: the same one every time it is asked for."""

    def row(self, index: int) -> int | None:
        """The row of its file (list entry or line, counted from 1); None where there is no file."""
        return None

    @property
    def modality_codes(self) -> np.ndarray:
        """int8 [len]: the place in `MODALITIES` of every index."""
        return np.array([MODALITIES.index(self.modality(i)) for i in range(len(self))], dtype=np.int8)


def modality_of(visuals: tuple[Visual, ...]) -> Modality:
    """The modality of a sample with these visuals: any clip makes it "video"."""
    if not visuals:
        return "text"
    if any(visual.kind == "video" for visual in visuals):
        return "video"
    return "picture" if len(visuals) == 1 else "pictures"
