"""First lesson: to see. The vision tower and the projector learn what covers every patch of a frame.

SigLIP's tower comes pre-trained, nano's must be: end to end, through the language model, a tower of this size
takes hours to tell shapes apart; from the labels that the world gives for free it takes a quarter of an hour
on one core. The class vectors learnt here become the first embeddings of the words for colours and forms, so
that the language model starts with names that already match what the projector says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration as OneVision

from examples.train_nano.dense import NOTHING_FORM, DenseLabels, dense_labels
from examples.train_nano.model import IMAGE_SIZE, SIDE
from examples.train_nano.optimizer import Optimizer
from examples.train_nano.unseen import tinted, without_unseen_colours, without_unseen_forms
from vidllava.nano.draw import draw, weather
from vidllava.nano.scene import COLOURS, FORMS, Split, generator, still_scene

_CENTRES = (np.arange(SIDE) + 0.5) / SIDE
_NOW = np.zeros(1)
_THINGS = (0.1, 0.25, 0.35, 0.3)  # how likely 1, 2, 3, 4 things are: many things, many labels
_TINTED = 0.5  # so many things have a colour without a name: a form must not depend on its colour
_EMPTY_WEIGHT = 0.3  # most patches are empty and easily told


class PatchHeads(nn.Module):
    """What a projected patch shows: form, colour, and five measures (see ``DenseLabels``)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.form = nn.Linear(width, len(FORMS) + 1)
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.measures = nn.Linear(width, 5)


@dataclass(frozen=True)
class TowerProgress:
    """One line of the learning curve; ``form`` and ``colour`` are accuracies over the patches of validation
    pictures that show something."""

    step: int
    seconds: float
    loss: float
    form: float
    colour: float


def see(model: OneVision, pixels: torch.Tensor) -> torch.Tensor:
    """uint8 [N, S, S, 3] -> projected features [N, side * side, width], as OneVision takes them: before the
    tower's last norm (``vision_feature_layer`` -1)."""
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    normal = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    return projector(tower.encoder(inputs_embeds=tower.embeddings(normal)).last_hidden_state)


def train_tower(
    model: OneVision,
    *,
    minutes: float,
    batch_size: int = 64,
    learning_rate: float = 6e-3,
    every: int = 100,
    max_steps: int | None = None,
) -> Iterator[TowerProgress]:
    """Train tower and projector of ``model`` for so many minutes of wall time; yields every ``every`` steps.

    The rate is constant for the first 40 % of the time and then falls linearly. At the end the class vectors
    are written into the word embeddings.
    """
    width = model.model.language_model.embed_tokens.embedding_dim
    heads = PatchHeads(width)
    optimizer = Optimizer(
        [
            ("tower", model.model.vision_tower),
            ("projector", model.model.multi_modal_projector),
            ("heads", heads),
        ],
        muon_lr=learning_rate,
        adam_lr=1.5e-3,
    )
    start, step, index = time.monotonic(), 0, 0
    while (elapsed := (time.monotonic() - start) / 60) < minutes and step != max_steps:
        optimizer.set_share(_share(elapsed / minutes, step))
        pixels, labels = _batch("train", index, batch_size)
        index += batch_size
        loss, _, _ = _losses(heads, see(model, pixels), labels)
        optimizer.step(loss)
        step += 1
        if step % every == 0:
            yield TowerProgress(step, time.monotonic() - start, loss.item(), *_validated(model, heads))
    _name_what_is_seen(model, heads)


def _validated(model: OneVision, heads: PatchHeads) -> tuple[float, float]:
    """Accuracy of (form, colour) on validation pictures."""
    pixels, labels = _batch("val", 0, 128)
    with torch.no_grad():
        _, form, colour = _losses(heads, see(model, pixels), labels)
    return form.item(), colour.item()


def _share(done: float, step: int) -> float:
    return min(1.0, (step + 1) / 100) * (1.0 if done < 0.4 else max(0.02, (1 - done) / 0.6))


def _example(split: Split, index: int) -> tuple[np.ndarray, DenseLabels]:
    rng = generator(split, 100, index)
    number = 1 + int(rng.choice(len(_THINGS), p=_THINGS))
    scene = still_scene(rng, split, number, wild=True)
    if split == "train":
        scene = tinted(rng, scene, _TINTED)
    return weather(draw(scene, _NOW, IMAGE_SIZE), rng), dense_labels(scene, _NOW, _CENTRES)


def _batch(split: Split, start: int, size: int) -> tuple[torch.Tensor, list[DenseLabels]]:
    examples = [_example(split, index) for index in range(start, start + size)]
    return torch.from_numpy(np.concatenate([pixels for pixels, _ in examples])), [one for _, one in examples]


def _losses(
    heads: PatchHeads, features: torch.Tensor, labels: list[DenseLabels]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, accuracy of forms, accuracy of colours)."""
    rows = features.flatten(0, 1)
    form, colour, measures = (
        torch.from_numpy(np.concatenate([getattr(one, name) for one in labels])).flatten(0, 2)
        for name in ("form", "colour", "measures")
    )
    shows = (form != NOTHING_FORM).float()
    weight = shows + _EMPTY_WEIGHT * (1 - shows)
    form_logits = without_unseen_forms(heads.form(rows), colour)
    colour_logits = without_unseen_colours(heads.colour(rows), form)
    error = (heads.measures(rows) - measures).square().mean(1)
    loss = (
        _mean(F.cross_entropy(form_logits, form, reduction="none"), weight)
        + 0.5 * _mean(F.cross_entropy(colour_logits, colour, reduction="none"), weight)
        + 2.0 * _mean(error, shows)
    )
    right_form = _mean((form_logits.argmax(1) == form).float(), shows)
    return loss, right_form, _mean((colour_logits.argmax(1) == colour).float(), shows)


def _mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight).sum() / weight.sum()


@torch.no_grad()
def _name_what_is_seen(model: OneVision, heads: PatchHeads) -> None:
    """Start the embeddings of colour and form words from the class vectors, in every spelling of the word."""
    from examples.train_nano.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    embedding = model.model.language_model.embed_tokens.weight
    typical = embedding.norm(dim=1).mean()
    for head, names in ((heads.form, FORMS), (heads.colour, tuple(COLOURS))):
        vectors = head.weight - head.weight.mean(0)
        for name, vector in zip(names, F.normalize(vectors)[: len(names)], strict=True):
            for spelling in dict.fromkeys((name, f" {name}", name.capitalize())):
                ids = tokenizer.encode(spelling).ids
                if len(ids) == 1:
                    embedding[ids[0]] = 0.8 * typical * vector + 0.6 * embedding[ids[0]]
