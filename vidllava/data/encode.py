"""One sample -> what the language model and the vision tower need: pixels, rows, ids and labels.

    encoder = SampleEncoder(backbone.settings, codec, EncodeOptions())
    sample_input = encoder(source.sample(0))

Everything here is a pure function of the sample and the options, so it may run in any worker.
"""

from __future__ import annotations

import numpy as np

from vidllava.backbone.settings import ModelSettings
from vidllava.backbone.splice import SampleInput, VisualInput
from vidllava.backbone.tokens import TextCodec
from vidllava.backbone.visuals import VisualRules
from vidllava.data.options import EncodeOptions
from vidllava.data.source import Sample, Visual
from vidllava.errors import DatasetError
from vidllava.media.decode import choose_backend, decode
from vidllava.media.picture import load_picture
from vidllava.media.pixels import padded_square, picture_tiles, resize_frames
from vidllava.media.probe import probe
from vidllava.media.timeline import SamplingRequest, plan_frames
from vidllava.prompting.conversation import (
    TEMPLATES,
    MediaKind,
    TokenizedPrompt,
    Turn,
    leading,
    num_placeholders,
    place,
    tokenize,
)


class SampleEncoder:
    """Turns samples into `SampleInput`s for one model."""

    def __init__(self, settings: ModelSettings, codec: TextCodec, options: EncodeOptions) -> None:
        preset = settings.preset
        self.settings, self.codec, self.options = settings, codec, options
        self.request = options.request or SamplingRequest(
            num_frames=preset.num_frames, rule=preset.sampling_rule
        )
        self.rules = VisualRules.of(
            settings,
            pool_stride=options.pool_stride,
            pool_mode=options.pool_mode,
            newline_mode=options.newline_mode,
        )
        self.rules.video(1)  # refuses a stride or mode that cannot be meant before the first sample does
        self.max_length = options.max_length or settings.trained_context
        self.template = TEMPLATES[preset.template]
        self.backend, _ = choose_backend(options.video_backend)

    def __call__(self, sample: Sample, *, draw: int = 0) -> SampleInput:
        """Encode one sample; `draw` is its place in the row of draws (it seeds a mixed placement).

        Raises MediaError for a file that cannot be used, DatasetError for a sample that has no answer to
        learn or needs more rows than the model may have: nothing is ever cut.
        """
        prompt = self.prompt(sample, draw=draw)
        visuals = tuple(self.visual(visual) for visual in sample.visuals)
        encoded = SampleInput(prompt=prompt, visuals=visuals)
        if encoded.num_tokens > self.max_length:
            raise DatasetError(
                sample.id,
                f"needs {encoded.num_tokens} tokens, the limit is {self.max_length}",
                "fewer frames, a larger --pool-stride, or a larger --model-max-length",
            )
        if prompt.num_labels == 0:
            raise DatasetError(sample.id, "has no answer to learn")
        return encoded

    def prompt(self, sample: Sample, *, draw: int = 0) -> TokenizedPrompt:
        """Ids with a slot per visual, labels on the answers."""
        kinds: list[MediaKind] = ["video" if v.kind == "video" else "picture" for v in sample.visuals]
        turns = sample.turns if num_placeholders(sample.turns) else _in_front(sample.turns, kinds)
        seed = f"{self.options.seed}:{draw}:{sample.id}"
        turns = place(turns, kinds, self.options.placement, seed=seed, source=sample.id)
        return tokenize(turns, self.template, self.codec, add_generation_prompt=False)

    def visual(self, visual: Visual) -> VisualInput:
        """Pixels and rows of one visual."""
        size = self.settings.image_size
        if visual.kind == "video":
            frames = self._clip(visual)
            return VisualInput(resize_frames(frames, size), self.rules.video(len(frames)))
        picture = load_picture(visual.path) if visual.path is not None else _frames(visual)[0]
        if visual.kind == "pictures":
            return VisualInput(padded_square(picture, size), self.rules.square())
        tiles = picture_tiles(picture, self.settings.pinpoints, size)
        return VisualInput(tiles, self.rules.picture(*picture.shape[:2]))

    def _clip(self, visual: Visual) -> np.ndarray:
        """uint8 [T, H, W, 3]: the frames given, or those of the file that the request picks."""
        if visual.path is None:
            return _frames(visual)
        info = probe(visual.path)
        plan = plan_frames(info.frame_times, visual.request or self.request, source=visual.path)
        return decode(info, plan, backend=self.backend, size=self.settings.image_size).pixels


def _frames(visual: Visual) -> np.ndarray:
    assert visual.frames is not None  # a Visual holds a path or frames
    return visual.frames


def _in_front(turns: tuple[Turn, ...], kinds: list[MediaKind]) -> tuple[Turn, ...]:
    """The conversation with its visuals before the first question, spelt as `ask` spells them."""
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    asked = Turn.from_parts("user", [*leading(kinds), *turns[first].parts])
    return (*turns[:first], asked, *turns[first + 1 :])
