# SPDX-License-Identifier: Apache-2.0
"""Losses: partial labels, focal, cross-entropy with soft labels, disagreement.

Each takes logits and returns one value per item or pixel where `reduction` is "none",
else their (weighted) mean.
"""

from __future__ import annotations

import torch
from torch.nn import functional

REDUCTIONS = ("mean", "none")


def admissible_classes(bits: torch.Tensor, classes: int = 4) -> torch.Tensor:
    """(n,) masks, bit c for class c, as `constraint_select` gives -> (n, classes) bool.

    Raises `ValueError` where a mask is empty or names a class that is not there.
    """
    wide = bits.to(torch.int64)
    if wide.ndim != 1:
        raise ValueError(f"need masks of shape (n,), got {tuple(wide.shape)}")
    if bool(((wide < 1) | (wide >= 1 << classes)).any()):
        raise ValueError(f"need masks of 1 to {(1 << classes) - 1}, one bit a class")
    places = torch.arange(classes, device=bits.device)
    return (wide.unsqueeze(1) >> places & 1).bool()


def partial_label_loss(
    logits: torch.Tensor,
    admissible: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross-entropy to "one of these classes" (Pham et al., Eq. 1, 2).

    The target is the prediction with the mass of the inadmissible classes spread
    evenly over the admissible ones; no gradient flows through it (P8), so every
    admissible logit is pushed up alike, by that mass over their number. With one
    admissible class it is the cross-entropy to that class.

    Parameters
    ----------
    logits : (n, classes) tensor
    admissible : (n, classes) bool tensor
        At least one class of every item.
    weights : (n,) tensor, optional
        Weights of the mean; 1 each where not given.
    reduction : {"mean", "none"}

    Raises
    ------
    ValueError
        Shapes differ, or an item has no admissible class.
    """
    if logits.ndim != 2 or logits.shape != admissible.shape:
        raise ValueError(
            "need logits and admissible of one shape (n, classes), got "
            f"{tuple(logits.shape)} and {tuple(admissible.shape)}"
        )
    if admissible.dtype != torch.bool:
        raise ValueError(f"need admissible as bool, got {admissible.dtype}")
    count = admissible.sum(1, keepdim=True)
    if bool((count == 0).any()):
        raise ValueError("need at least one admissible class of every item")
    log_shares = functional.log_softmax(logits.float(), dim=1)
    shares = log_shares.detach().exp()
    moved = shares.masked_fill(admissible, 0.0).sum(1, keepdim=True) / count
    target = (shares + moved).masked_fill(~admissible, 0.0)
    return _reduce(-(target * log_shares).sum(1), weights, reduction)


def soft_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross-entropy to class shares (n, classes); one-hot rows are plain labels."""
    if logits.ndim != 2 or logits.shape != target.shape:
        raise ValueError(
            "need logits and target of one shape (n, classes), got "
            f"{tuple(logits.shape)} and {tuple(target.shape)}"
        )
    log_shares = functional.log_softmax(logits.float(), dim=1)
    return _reduce(-(target.to(log_shares) * log_shares).sum(1), weights, reduction)


def disagreement(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean over items of the two ways' Kullback-Leibler divergence, halved.

    Logits (n, classes) of the same items seen in two ways; 0 where their class shares
    are equal. The symmetric term of R-Drop (Liang et al., 2021, Eq. 2).
    """
    if first.ndim != 2 or first.shape != second.shape:
        raise ValueError(
            "need two logits of one shape (n, classes), got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    one = functional.log_softmax(first.float(), dim=1)
    other = functional.log_softmax(second.float(), dim=1)
    # KL(p, q) + KL(q, p) = sum of (p - q) (log p - log q)
    both: torch.Tensor = ((one.exp() - other.exp()) * (one - other)).sum(1)
    return 0.5 * both.mean()


def focal_loss(
    logits: torch.Tensor,
    mask: torch.Tensor,
    *,
    alpha: float,
    gamma: float,
    valid: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Weighted focal loss of two classes (Lin et al., 2017, Eq. 5).

    Parameters
    ----------
    logits : tensor
        Of tumor.
    mask : tensor of the same shape
        1 is tumor, 0 is not.
    alpha : float
        Weight of tumor, in (0, 1); the rest has 1 - alpha.
    gamma : float
        At least 0; 0 is weighted cross-entropy.
    valid : bool tensor, optional
        Pixels that count; a mean over none is 0.
    reduction : {"mean", "none"}
    """
    if logits.shape != mask.shape:
        raise ValueError(
            "need logits and mask of one shape, got "
            f"{tuple(logits.shape)} and {tuple(mask.shape)}"
        )
    if not 0.0 < alpha < 1.0 or gamma < 0.0:
        raise ValueError(
            f"need 0 < alpha < 1 and gamma >= 0, got alpha={alpha}, gamma={gamma}"
        )
    values, truth = logits.float(), mask.to(torch.float32)
    # log of the probability of the true class, exact also where that is near 0
    signed = torch.where(truth > 0.5, values, -values)
    log_true = functional.logsigmoid(signed)
    weight = alpha * truth + (1.0 - alpha) * (1.0 - truth)
    losses = -weight * (1.0 - log_true.exp()) ** gamma * log_true
    return _reduce(losses, None if valid is None else valid.to(losses), reduction)


def _reduce(
    losses: torch.Tensor, weights: torch.Tensor | None, reduction: str
) -> torch.Tensor:
    if reduction not in REDUCTIONS:
        raise ValueError(f"need reduction of {REDUCTIONS}, got {reduction!r}")
    if weights is not None and weights.shape != losses.shape:
        raise ValueError(
            f"need weights of shape {tuple(losses.shape)}, got {tuple(weights.shape)}"
        )
    if reduction == "none":
        return losses if weights is None else losses * weights
    if weights is None:
        return losses.mean() if losses.numel() else losses.sum()
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)
