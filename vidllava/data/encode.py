"""The encoding of a sample: the pixels, rows, ids and labels that tower and language model need.

    encoder = SampleEncoder(backbone.settings, codec, EncodeOptions())
    sample_input = encoder(source.sample(0))

Everything here is a pure function of the sample and the options, so it may run in any worker.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange

from vidllava.backbone.splice import SampleInput, VisualInput
from vidllava.backbone.tokens import TextCodec
from vidllava.data.source import Sample, Visual
from vidllava.data.token_counter import EncodeOptions, TokenCounter
from vidllava.media.decode import choose_backend
from vidllava.media.pixels import mean_colour, padded_square, picture_tiles, resize_frames
from vidllava.media.sampler import IN_PROCESS, Sampler
from vidllava.prompting.conversation import TokenizedPrompt
from vidllava.visuals.planner import ModelSettings


class SampleEncoder:
    """Turns samples into `SampleInput`s for one model; `sampler` opens the files, with a deadline or here."""

    def __init__(
        self,
        settings: ModelSettings,
        codec: TextCodec,
        options: EncodeOptions,
        sampler: Sampler = IN_PROCESS,
    ) -> None:
        self.settings, self.codec, self.options, self.sampler = settings, codec, options, sampler
        self.counter = TokenCounter(settings, codec, options)
        self.planner, self.max_length = self.counter.planner, self.counter.max_length
        self.backend, _ = choose_backend(options.video_backend)

    def __call__(self, sample: Sample, *, draw: int = 0) -> SampleInput:
        """Encode one sample; `draw` is its place in the row of draws (it seeds a mixed placement).

        Raises MediaError for a file that cannot be used, ResourceError for one that takes too long,
        DatasetError for a sample that has no answer to learn or needs more rows than the model may have:
        nothing is ever cut.
        """
        prompt = self.prompt(sample, draw=draw)
        self.counter.check_labels(sample, prompt)
        visuals = tuple(self.visual(visual) for visual in sample.visuals)
        encoded = SampleInput(prompt=prompt, visuals=visuals)
        self.counter.check_length(sample, encoded.num_tokens)
        return encoded

    def prompt(self, sample: Sample, *, draw: int = 0) -> TokenizedPrompt:
        """Ids with a slot per visual, labels on the answers."""
        return self.counter.prompt(sample, draw=draw)

    def visual(self, visual: Visual) -> VisualInput:
        """Pixels and rows of one visual."""
        size = self.settings.image_size
        if visual.kind == "video":
            pixels = self._clip(visual)
            return VisualInput(pixels, self.planner.video(len(pixels)))
        picture = self.sampler.picture(visual.path) if visual.path is not None else _frames(visual)[0]
        alone = visual.kind != "pictures"
        layout = self.planner.picture(*picture.shape[:2], alone=alone)
        if layout.kind == "pictures":
            background = mean_colour(self.settings.image_mean)
            return VisualInput(padded_square(picture, size, background), layout)
        return VisualInput(picture_tiles(picture, self.planner.canvases(alone=alone), size), layout)

    def _clip(self, visual: Visual) -> torch.Tensor:
        """uint8 [T, 3, S, S]: the frames given, or those on disk that the request picks."""
        size = self.settings.frame_size
        if visual.pictures is not None:
            planned = self.counter.plan_pictures(visual).indices
            # One at a time: they may be large, and of different sizes.
            pictures = (self.sampler.picture(visual.pictures[at]) for at in planned)
            return torch.cat([resize_frames(picture[None], size) for picture in pictures])
        if visual.path is None:
            return resize_frames(_frames(visual), size)
        info = self.sampler.probe(visual.path)
        plan = self.counter.plan(visual, info.frame_times, visual.path, info.duration_seconds)
        frames = self.sampler.decode(info, plan, backend=self.backend, size=size).pixels
        return rearrange(torch.from_numpy(frames), "t h w c -> t c h w").contiguous()


def _frames(visual: Visual) -> np.ndarray:
    assert visual.frames is not None  # a Visual holds files or frames
    return visual.frames
