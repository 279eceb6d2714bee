"""How far each family's logits are from transformers' own, in every layout: tiny random checkpoints, float32.

    python benchmarks/parity.py -o parity.json

Per family, layout and kind of media: the largest relative difference of the logits, whether 20 greedy ids are
equal, and the visual tokens. Checkpoints and comparison are those of tests/models/test_parity.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.clips import write_clip
from tests.models import test_parity as parity
from tests.models.checkpoints import PUBLISHED


def main() -> None:
    """Write the rows, and print them as a table."""
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    given.add_argument("-o", "--output", type=Path)
    output = given.parse_args().output
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = str(write_clip(folder / "clip.mp4", num_frames=24, width=160, height=96))
        picture = str(folder / "picture.png")
        pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(picture)
        for model in sorted(PUBLISHED):
            for layout in parity.LAYOUTS:
                rows += compared(model, layout, folder / model / layout, clip, picture)
                shown = rows[-1]
                errors = f"{shown['clip']:.1e} {shown['picture']:.1e}"
                print(f"{model:<18} {layout:<24} {errors} ids {shown['same_ids']}")
    found = {"transformers": transformers.__version__, "torch": torch.__version__, "rows": rows}
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def compared(name: str, layout: str, folder: Path, clip: str, picture: str) -> list[dict[str, Any]]:
    """One row: relative differences by the Euclidean norm of all logits."""
    factory = SimpleNamespace(mktemp=lambda _: (folder.mkdir(parents=True), folder)[1])
    pair = parity.opened_pair(name, layout, factory)
    row: dict[str, Any] = {"model": name, "family": pair.family, "layout": layout}
    for kind, path, options in (("clip", clip, {"num_frames": parity.FRAMES}), ("picture", picture, {})):
        question = parity.asked(pair, path, **options)
        with torch.inference_mode():
            theirs = pair.theirs(**parity.their_inputs(pair, question)).logits
        ours = parity.our_logits(pair, question)
        row[kind] = float((ours - theirs).norm() / theirs.norm())
        row[f"{kind}_tokens"] = question.items[0].layout.num_tokens
    ids, expected = parity.greedy_ids(pair, parity.asked(pair, clip, num_frames=parity.FRAMES))
    row |= {"same_ids": ids == expected, "num_ids": len(ids)}
    return [row]


if __name__ == "__main__":
    main()
