"""What a network of random weights should show: gains, propagation over depth, losses, updates. Pure and without torch.

`activations` has the integrals, `propagation` the recursions over depth, `profile` what a model's own weights should
give (`forward`, `backward`) and where a healthy start stays (`healthy`), `loss` the loss of knowing nothing, `updates`
how far an optimizer moves.
"""

from initscope.hooks.theory.activations import (
    ACTIVATIONS,
    BOUNDED,
    LINEAR,
    RECTIFIERS,
    Activation,
    Kept,
    activation,
    activation_name,
    kept,
)
from initscope.hooks.theory.loss import initial_loss, initial_square_error, logit_std_of_loss, trivial_loss
from initscope.hooks.theory.profile import Expected, predicted_logit_rms, predicted_loss, predicted_profile
from initscope.hooks.theory.propagation import (
    attention_logit_std,
    critical_scale,
    depth_scale,
    expected_std,
    fixed_point,
    forward_step,
    growth,
    residual_std,
    stream_rms,
    susceptibility,
    width_tolerance,
)
from initscope.hooks.theory.updates import expected_update_ratio

__all__ = [
    "ACTIVATIONS",
    "BOUNDED",
    "LINEAR",
    "RECTIFIERS",
    "Activation",
    "Expected",
    "Kept",
    "activation",
    "activation_name",
    "attention_logit_std",
    "critical_scale",
    "depth_scale",
    "expected_std",
    "expected_update_ratio",
    "fixed_point",
    "forward_step",
    "growth",
    "initial_loss",
    "initial_square_error",
    "kept",
    "logit_std_of_loss",
    "predicted_logit_rms",
    "predicted_loss",
    "predicted_profile",
    "residual_std",
    "stream_rms",
    "susceptibility",
    "trivial_loss",
    "width_tolerance",
]
