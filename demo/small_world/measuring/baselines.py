"""What steering is compared with, from the papers' equations. Pure functions on tensors; `baseline_patches` uses them.

SLD (Schramowski et al. 2023), e_p, e_u, e_s predictions for the prompt, no prompt and the unsafe concept:

    phi = s_S (e_p - e_s)     mu = min(1, |phi|) where e_p - e_s < lambda, else 0     (elementwise)
    gamma = mu (e_s - e_u) + s_m nu           nu <- beta_m nu + (1 - beta_m) gamma
    e = e_u + s_g (e_p - e_u - gamma)         gamma is left out of e during the warm-up

The paper prints max(1, |phi|); its released code clamps at 1 from above, which is what is done here.

SAFREE (Yoon et al. 2024), P_C and P_I projections on the span of the concepts and of the prompt's masked embeddings:

    token i is a trigger if ||(I - P_C) p_without_i|| > (1 + alpha) mean over j != i of the same
    a trigger becomes (I - P_C) P_I p_i, the others stay
    the edit holds for the first t' of the steps, t' = t_max sigmoid(5 (10 b - 5.333)), b = 1 - cos(p, p_edited)

The last line is the released code's calibration of the paper's sigmoid(1 - cos). A masked embedding here is the mean of
the other tokens' states, not another pass of the text encoder; the tokens then lie in the span of P_I.

CASteer (Gaintseva et al. 2025), h a cross-attention output and v the concept's unit direction there:

    h' = h - b max(<h, v>, 0) v, then rescaled to ||h||
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Sld:
    """SLD's parameters. warmup: share of the denoising in which nothing is changed yet."""

    scale: float = 1000.0
    threshold: float = 0.01
    momentum_scale: float = 0.3
    momentum_beta: float = 0.4
    warmup: float = 0.2


# the paper's presets; warm-ups are of 50 steps there
SLD_PRESETS = {
    "weak": Sld(200.0, 0.0, 0.0, 0.0, 0.3),
    "medium": Sld(1000.0, 0.01, 0.3, 0.4, 0.2),
    "strong": Sld(2000.0, 0.025, 0.5, 0.7, 0.14),
    "max": Sld(5000.0, 1.0, 0.5, 0.7, 0.0),
}


def sld_guidance(
    prompt: torch.Tensor, none: torch.Tensor, concept: torch.Tensor, momentum: torch.Tensor, how: Sld
) -> tuple[torch.Tensor, torch.Tensor]:
    """SLD's gamma and the next momentum nu, all of the predictions' shape."""
    difference = prompt - concept
    weight = (how.scale * difference).abs().clamp_max(1.0) * (difference < how.threshold)
    gamma = weight * (concept - none) + how.momentum_scale * momentum
    return gamma, how.momentum_beta * momentum + (1 - how.momentum_beta) * gamma


def guided(prompt: torch.Tensor, none: torch.Tensor, gamma: torch.Tensor | float, guidance: float) -> torch.Tensor:
    """Classifier-free guidance with SLD's term; gamma 0 is plain guidance."""
    return none + guidance * (prompt - none - gamma)


def basis_of(rows: torch.Tensor) -> torch.Tensor:
    """Orthonormal basis (r, D) of the span of `rows` (n, D)."""
    _, sizes, basis = torch.linalg.svd(rows, full_matrices=False)
    kept: torch.Tensor = basis[sizes > sizes[0] * max(rows.shape) * torch.finfo(rows.dtype).eps]
    return kept


def safree_triggers(tokens: torch.Tensor, concepts: torch.Tensor, alpha: float) -> torch.Tensor:
    """Which tokens (n,) of a prompt bring it near the concepts. tokens (n, D) without padding; concepts (r, D): basis.

    A prompt of one token has no others to be compared with, and no trigger.
    """
    count = len(tokens)
    if count < 2:
        return torch.zeros(count, dtype=torch.bool)
    masked = (tokens.sum(dim=0) - tokens) / (count - 1)
    distance = _without(masked, concepts).norm(dim=1)
    others = (distance.sum() - distance) / (count - 1)
    return distance > (1 + alpha) * others


def safree_edit(tokens: torch.Tensor, concepts: torch.Tensor, alpha: float) -> torch.Tensor:
    """A prompt's tokens (n, D) with its triggers taken out of the concepts' span."""
    triggers = safree_triggers(tokens, concepts, alpha)
    if not bool(triggers.any()):
        return tokens
    masked = (tokens.sum(dim=0) - tokens) / (len(tokens) - 1)
    span = basis_of(masked)
    return torch.where(triggers[:, None], _without(tokens @ span.T @ span, concepts), tokens)


def safree_until(tokens: torch.Tensor, edited: torch.Tensor, most: float) -> float:
    """Share of the denoising, from its start, in which the edit holds; at most `most`, in fiftieths as released."""
    cosine = torch.cosine_similarity(tokens.flatten(), edited.flatten(), dim=0)
    return round(50 * most * float(torch.sigmoid(5.0 * (10.0 * (1.0 - cosine) - 5.333)))) / 50


def casteer(h: torch.Tensor, direction: torch.Tensor, beta: float) -> torch.Tensor:
    """Take a concept's unit direction (D,) out of hidden states (..., D) that have it, keeping each token's norm."""
    along = (h @ direction).clamp_min(0.0)
    turned = h - beta * along[..., None] * direction
    norm = turned.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(h.dtype).tiny)
    return turned * (h.norm(dim=-1, keepdim=True) / norm)


def _without(rows: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """(I - P) of rows (n, D), P the projection on the span of `basis` (r, D), orthonormal."""
    return rows - rows @ basis.T @ basis
