"""The loss of knowing nothing, and what it says of the outputs.

Source: Derrida's random energy model (1981) for the expected cross entropy of random logits.
"""

from __future__ import annotations

import math


def trivial_loss(classes: int) -> float:
    """Cross entropy of a uniform guess, ln C, in nats."""
    return math.log(classes)


def initial_loss(classes: int, logit_std: float) -> float:
    """Expected cross entropy of random logits of that std: ln C + σ²/2, and σ·√(2 ln C) beyond σ = √(2 ln C)."""
    uniform = trivial_loss(classes)
    if logit_std * logit_std <= 2 * uniform:
        return uniform + logit_std * logit_std / 2
    return logit_std * math.sqrt(2 * uniform)


def logit_std_of_loss(classes: int, loss: float) -> float:
    """The std of random logits that explains an initial loss: the inverse of `initial_loss`; 0 for no excess."""
    uniform = trivial_loss(classes)
    if loss <= uniform:
        return 0.0
    return math.sqrt(2 * (loss - uniform)) if loss <= 2 * uniform else loss / math.sqrt(2 * uniform)


def initial_square_error(output_rms: float, target_rms: float = 1.0) -> float:
    """Expected mean square error of outputs that know nothing of the targets: rms(y)² + rms(t)²."""
    return output_rms * output_rms + target_rms * target_rms
