"""What the backbone calls: `splice` once per batch, `rotate` once per layer. Legend as in `reference.py`."""

from __future__ import annotations

from torch import Tensor

from vidllava.kernels.plan import SplicePlan
from vidllava.kernels.record import build_rows, turn


def splice(
    features: Tensor,
    embedding: Tensor,
    newline: Tensor,
    plan: SplicePlan,
    inv_freq: Tensor,
    *,
    factor: float = 1.0,
    attention_scaling: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Build every row of the packed language input, and every row's rotary table, in one launch.

    features    [N, D]      projected visual features, one row per cell of the tower's grids
    embedding   [V, D]      the language model's token embeddings
    newline     [D]         the learned newline vector
    plan        SplicePlan  the source of each of the S rows, on the device of `features`
    inv_freq    fp32 [R/2]  inverse frequencies, not yet divided
    factor      linear RoPE scaling: the angle of a row is position * (inv_freq / factor)

    Returns rows [S, D], cos [S, R] and sin [S, R] in the embedding's dtype; maths in fp32, one rounding.
    Gradients: features, newline, and embedding if it requires them; deterministic with Triton and on the
    CPU. What no row reads gets zeros for a gradient, or none. Raises ValueError where the shapes do not fit
    the plan.
    """
    channels = embedding.shape[1]
    if features.shape[1:] != (channels,) or newline.shape != (channels,):
        raise ValueError(
            f"features {list(features.shape)} and newline {list(newline.shape)} do not fit embeddings of "
            f"{channels} channels"
        )
    if features.shape[0] < plan.num_feature_rows or embedding.shape[0] < plan.num_vocabulary:
        raise ValueError(
            f"the plan reads {plan.num_feature_rows} feature rows and {plan.num_vocabulary} embeddings, "
            f"given are {features.shape[0]} and {embedding.shape[0]}"
        )
    if plan.device != features.device:
        raise ValueError(f"the plan is on {plan.device}, the features are on {features.device}")
    return build_rows(features, embedding, newline, inv_freq, plan, factor, attention_scaling)


def rotate(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, may_overwrite: bool = False
) -> tuple[Tensor, Tensor]:
    """Rotate queries and keys by their rows' tables, in one launch.

    q           [B, H, S, D]        any strides
    k           [B, Hkv, S, D]      any strides; any number of heads
    cos, sin    [B or 1, S, R]      as `splice` and `rotary_tables` make them: R <= D, both halves equal

    Channel i < R/2 is paired with channel i + R/2 (transformers' layout); channels from R on are copied.
    Maths in fp32, one rounding; the PyTorch path rounds low precision twice (transformers: three times).
    Gradients for q and k: the inverse rotation. Raises ValueError.

    Neither input is changed, unless `may_overwrite`: then the caller needs neither again, they share no
    element, and the results may lie in their memory, which saves allocating. It is a permission: an input
    that requires a gradient, or is expanded, is left as it is.
    """
    q_shape, k_shape, tables = q.shape, k.shape, cos.shape
    batch, _, length, channels = q_shape
    if k_shape[0] != batch or k_shape[2:] != q_shape[2:]:
        raise ValueError(f"k {list(k_shape)} does not fit q {list(q_shape)}: only the heads may differ")
    fits = len(tables) == 3 and sin.shape == tables and tables[0] in (1, batch) and tables[1] == length
    if not fits or tables[2] % 2 or not 0 < tables[2] <= channels:
        raise ValueError(
            f"cos {list(cos.shape)} and sin {list(sin.shape)} do not fit q {list(q_shape)}: expected "
            f"[{batch} or 1, {length}, even and at most {channels}]"
        )
    return turn(q, k, cos, sin, False, may_overwrite)
