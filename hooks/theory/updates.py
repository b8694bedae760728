"""How far an optimizer moves a weight: the expected rms(update) ÷ rms(weight) of a step.

Sources: Sutskever et al. (2013) for momentum; Tieleman and Hinton (2012) for RMSprop; Duchi et al. (2011) for Adagrad;
Kingma and Ba (2015) and Loshchilov and Hutter (2019) for Adam and decoupled weight decay; Chen et al. (2023) for Lion.
With weights c_k on the gradients of the last steps, equal in size and with correlation ρ between any two of them, the
mean square of their sum is rms(g)²·((1−ρ)·Σc_k² + ρ·(Σc_k)²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from initscope.hooks.wire import OptimizerInfo


def expected_update_ratio(
    optimizer: OptimizerInfo, weight_rms: float, gradient_rms: float, step: int = 0, correlation: float = 0.0
) -> float | None:
    """rms(update) ÷ rms(weight) of the optimizer's step number `step` (from 0), from its hyperparameters.

    `gradient_rms` is that of the gradients so far, `correlation` (0 to 1) what the gradients of two steps have in
    common: 1 for a full batch, near 0 for noise. At step 0 it does not matter. Formulas, with u = rms(update):

    - SGD: u = lr·rms(g), with momentum μ lr·Σμ^k g_{t−k}, g with weight decay inside.
    - Adam, AdamW: u = lr·rms(Σc_k g_{t−k})/(rms(g) + ε), c_k = (1−β₁)β₁^k/(1−β₁^{t+1}): lr at step 0, for noise
      lr·√((1−β₁)/(1+β₁)) later.
    - RMSprop (α is `beta2`): lr/√(1−α^{t+1}), 10·lr at step 0 for α = 0.99; momentum sums it up.
    - Adagrad: lr/√(t+1). Lion: lr, as every element moves by it.
    - Decoupled weight decay (AdamW, Lion) adds lr·λ·rms(w), without correlation to the gradient.

    None for an optimizer that is not listed, unknown hyperparameters, or weights that are zero.
    """
    rule = _RULES.get(_name(optimizer.name))
    known = optimizer.lr is not None and 0.0 < weight_rms < math.inf and 0.0 <= gradient_rms < math.inf
    if rule is None or not known or step < 0:
        return None
    update = rule(_Given(optimizer, weight_rms, gradient_rms, min(step, _LONG), min(1.0, max(0.0, correlation))))
    return None if update is None else update / weight_rms


@dataclass(frozen=True, slots=True)
class _Given:
    """One call's arguments."""

    optimizer: OptimizerInfo
    weight: float
    gradient: float
    step: int
    correlation: float

    @property
    def lr(self) -> float:
        return self.optimizer.lr or 0.0

    @property
    def decay(self) -> float:
        return self.optimizer.weight_decay or 0.0

    @property
    def decayed_gradient(self) -> float:
        """Gradient with the penalty λ·w inside."""
        return math.hypot(self.gradient, self.decay * self.weight)

    def summed(self, shares: Sequence[float], *, decayed: bool = True) -> float:
        """Rms of Σ c_k g_k for gradients of rms 1; of decayed ones the penalty's part is the same at every step."""
        squares, total = sum(c * c for c in shares), sum(shares)
        noise = 1.0 - self.correlation
        if decayed and self.decay and self.decayed_gradient > 0.0:
            noise *= (self.gradient / self.decayed_gradient) ** 2
        return math.sqrt(noise * squares + (1.0 - noise) * total * total)


def _sgd(given: _Given) -> float:
    momentum = given.optimizer.momentum or 0.0
    return given.lr * given.decayed_gradient * given.summed(_powers(momentum, given.step))


def _adam(given: _Given) -> float | None:
    return _adam_step(given, given.decayed_gradient, decayed=True)


def _adamw(given: _Given) -> float | None:
    step = _adam_step(given, given.gradient, decayed=False)
    return None if step is None else math.hypot(step, given.lr * given.decay * given.weight)


def _adam_step(given: _Given, gradient: float, *, decayed: bool) -> float | None:
    beta = given.optimizer.beta1
    if beta is None or not 0.0 <= beta < 1.0:
        return None
    shares = _powers(beta, given.step)
    total = sum(shares)
    size = gradient + (given.optimizer.eps or 0.0)
    summed = given.summed([c / total for c in shares], decayed=decayed)
    return given.lr * summed * (gradient / size if size > 0.0 else 0.0)


def _rmsprop(given: _Given) -> float | None:
    alpha = given.optimizer.beta2
    if alpha is None or not 0.0 <= alpha < 1.0:
        return None
    momentum = given.optimizer.momentum or 0.0
    newest = range(given.step, -1, -1)
    shares = [c / math.sqrt(1.0 - alpha ** (t + 1)) for c, t in zip(_powers(momentum, given.step), newest, strict=True)]
    gradient = given.decayed_gradient
    # ε joins the root of the running mean square, which is smaller than the gradient at first.
    size = gradient + (given.optimizer.eps or 0.0) / math.sqrt(1.0 - alpha ** (given.step + 1))
    return given.lr * given.summed(shares) * (gradient / size if size > 0.0 else 0.0)


def _adagrad(given: _Given) -> float:
    gradient = given.decayed_gradient
    size = gradient * math.sqrt(given.step + 1) + (given.optimizer.eps or 0.0)
    return given.lr * gradient / size if size > 0.0 else 0.0


def _lion(given: _Given) -> float:
    moves = given.lr if given.gradient > 0.0 else 0.0
    return math.hypot(moves, given.lr * given.decay * given.weight)


def _powers(base: float, step: int) -> list[float]:
    return [base**k for k in range(step + 1)]


def _name(name: str) -> str:
    """`FusedAdam`, `torch.optim.AdamW` and the like under one name."""
    return name.rsplit(".", 1)[-1].lower().removeprefix("fused").removesuffix("8bit")


_LONG: Final = 2_000
"""Steps after which nothing of these sums changes, but for the slowest averages."""
_RULES: Final[Mapping[str, Callable[[_Given], float | None]]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
    "adagrad": _adagrad,
    "lion": _lion,
}
