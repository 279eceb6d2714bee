"""nano: OneVision's architecture in a few million parameters, trained here on a generated world."""

from __future__ import annotations

from vidllava.models.family import Family, NamedModel, Preset

FAMILY = Family(
    # Short answers on a short context: 64 tokens are three times nano's longest answer.
    preset=Preset(name="nano", num_frames=8, reserve_tokens=64),
    model_type="llava_onevision",
    hf_class="LlavaOnevisionForConditionalGeneration",
    recognises=lambda config: False,  # its vidllava.json names it
    models=(
        NamedModel(
            name="nano",
            hub_id=None,
            about="embedded; trained by this project, knows its generated world of moving shapes only",
        ),
    ),
)
