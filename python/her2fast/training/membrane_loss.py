# SPDX-License-Identifier: Apache-2.0
"""The loss of Khameneh et al. (2019), Eq. 1 to 3, as K1 and K2 read it.

Eq. 1 as printed weighs membranes down, where they are the rare ones (K1: beta is the
share of background); Eq. 2 as printed is lowest where nothing overlaps (K2: 1 - Dice).
"""

from __future__ import annotations

import torch
from torch.nn import functional

#: Width of the edge map (K5).
EDGE_PX = 3
#: Keeps Dice defined, and flat, where neither truth nor prediction has an edge.
EPSILON = 1.0


def edge_map(mask: torch.Tensor, edge_px: int = EDGE_PX) -> torch.Tensor:
    """Borders of a membrane mask, `edge_px` wide.

    The membrane's outermost pixels (those with one of four neighbors off the membrane)
    and what lies within (edge_px - 1) / 2 of them. A picture's border is no edge:
    nobody knows what lies beyond.

    Parameters
    ----------
    mask : (N, H, W) bool tensor
    edge_px : int
        Odd.

    Returns
    -------
    (N, H, W) bool tensor
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(
            f"need a bool mask of shape (N, H, W), got {mask.dtype} {tuple(mask.shape)}"
        )
    if edge_px < 1 or edge_px % 2 == 0:
        raise ValueError(f"need an odd edge_px >= 1, got {edge_px}")
    padded = functional.pad(mask.float().unsqueeze(1), (1, 1, 1, 1), mode="replicate")
    padded = padded[:, 0] > 0.5
    whole = (
        padded[:, :-2, 1:-1]
        & padded[:, 2:, 1:-1]
        & padded[:, 1:-1, :-2]
        & padded[:, 1:-1, 2:]
    )
    border = (mask & ~whole).float().unsqueeze(1)
    grown = functional.max_pool2d(border, edge_px, 1, edge_px // 2)
    return grown[:, 0] > 0.5


def weighted_cross_entropy(
    logits: torch.Tensor,
    mask: torch.Tensor,
    *,
    beta: float,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 1 read by K1: the mean of -beta y log p - (1 - beta) (1 - y) log(1 - p).

    Parameters
    ----------
    logits : tensor
        Of membrane.
    mask : bool tensor of the same shape
        True is membrane.
    beta : float
        Weight of membrane, in (0, 1); K1: the share of background.
    valid : bool tensor, optional
        Pixels that count; a mean over none is 0.
    """
    _check(logits, mask, valid)
    if not 0.0 < beta < 1.0:
        raise ValueError(f"need 0 < beta < 1, got {beta}")
    values = logits.float()
    losses = torch.where(
        mask,
        -beta * functional.logsigmoid(values),
        -(1.0 - beta) * functional.logsigmoid(-values),
    )
    if valid is None:
        return losses.mean()
    weights = valid.to(losses)
    return (losses * weights).sum() / weights.sum().clamp(min=1.0)


def dice_loss(
    logits: torch.Tensor,
    mask: torch.Tensor,
    *,
    valid: torch.Tensor | None = None,
    epsilon: float = EPSILON,
) -> torch.Tensor:
    """Eq. 2 read by K2: 1 - (2 sum(y p) + e) / (sum(y) + sum(p) + e), over the batch.

    Over the batch, because a picture without membrane has no Dice of its own.
    """
    _check(logits, mask, valid)
    share, truth = torch.sigmoid(logits.float()), mask.float()
    if valid is not None:
        share, truth = share * valid, truth * valid
    both = (share * truth).sum()
    return 1.0 - (2.0 * both + epsilon) / (share.sum() + truth.sum() + epsilon)


def membrane_loss(
    outputs: torch.Tensor,
    mask: torch.Tensor,
    *,
    beta: float,
    edge_weight: float,
    edge_px: int = EDGE_PX,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Eq. 3: cross-entropy of membranes + `edge_weight` (lambda) x Dice of edges.

    `outputs` are (N, 2, H, W) logits of membrane and edge, `mask` is (N, H, W) bool.
    """
    if outputs.ndim != 4 or outputs.shape[1] != 2:
        raise ValueError(
            f"need outputs of shape (N, 2, H, W), got {tuple(outputs.shape)}"
        )
    likelihood = weighted_cross_entropy(outputs[:, 0], mask, beta=beta, valid=valid)
    edges = dice_loss(outputs[:, 1], edge_map(mask, edge_px), valid=valid)
    return likelihood + edge_weight * edges


def _check(
    logits: torch.Tensor, mask: torch.Tensor, valid: torch.Tensor | None
) -> None:
    if logits.shape != mask.shape or mask.dtype != torch.bool:
        raise ValueError(
            "need logits and a bool mask of one shape, got "
            f"{tuple(logits.shape)} and {mask.dtype} {tuple(mask.shape)}"
        )
    if valid is not None and (valid.shape != mask.shape or valid.dtype != torch.bool):
        raise ValueError(
            f"need valid as bool {tuple(mask.shape)}, got {valid.dtype} "
            f"{tuple(valid.shape)}"
        )
