"""Kinds of modules and functions: activations, norms, weighted maps; and the effective fans of their weights."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import torch
from torch import nn

Fans = tuple[float | None, float | None]
"""Effective (fan_in, fan_out): terms that one output, or one input's gradient, is a sum of."""

_ACTIVATION_FUNCTIONS: Final = {
    "relu": "relu", "relu6": "relu6", "leaky_relu": "leaky_relu", "rrelu": "leaky_relu", "prelu": "prelu",
    "elu": "elu", "selu": "selu", "celu": "celu", "gelu": "gelu", "silu": "silu", "mish": "mish", "tanh": "tanh",
    "sigmoid": "sigmoid", "hardtanh": "hardtanh", "hardsigmoid": "hardsigmoid", "hardswish": "hardswish",
    "softplus": "softplus", "softsign": "softsign", "logsigmoid": "logsigmoid", "glu": "glu",
    "tanhshrink": "tanhshrink", "softmax": "softmax", "log_softmax": "log_softmax", "threshold": "threshold",
}  # fmt: skip
_NORM_FUNCTIONS: Final = frozenset({"layer_norm", "batch_norm", "group_norm", "instance_norm", "rms_norm"})
_NORM_PARTS: Final = {"rsqrt": "rms_norm", "std": "layer_norm", "var": "layer_norm", "normalize": "rms_norm"}
"""What only a hand-written normalization computes of an output."""
_WEIGHTED_FUNCTIONS: Final = frozenset({
    "linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "einsum", "embedding", "embedding_bag",
    "scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu",
    "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell",
})  # fmt: skip
_ACTIVATION_WORDS: Final = (
    ("leakyrelu", "leaky_relu"), ("prelu", "prelu"), ("relu6", "relu6"), ("gelu", "gelu"), ("selu", "selu"),
    ("celu", "celu"), ("silu", "silu"), ("swish", "silu"), ("mish", "mish"), ("softplus", "softplus"),
    ("softsign", "softsign"), ("hardtanh", "hardtanh"), ("logsigmoid", "logsigmoid"), ("hardsigmoid", "hardsigmoid"),
    ("hardswish", "hardswish"), ("relu", "relu"), ("elu", "elu"), ("tanh", "tanh"), ("sigmoid", "sigmoid"),
    ("logsoftmax", "log_softmax"), ("softmax", "softmax"),
)  # fmt: skip
_NORM_WORDS: Final = (
    ("batchnorm", "batch_norm"), ("layernorm", "layer_norm"), ("groupnorm", "group_norm"),
    ("instancenorm", "instance_norm"), ("rmsnorm", "rms_norm"),
)  # fmt: skip
_CHANNELS_FIRST: Final = (
    nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.Upsample, nn.PixelShuffle,
)  # fmt: skip
_CHANNELS_LAST: Final = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Embedding, nn.RNNBase, nn.MultiheadAttention)


def activation_function(name: str) -> str | None:
    """The activation that a function of that name computes (`relu_` and `relu` are one)."""
    return _ACTIVATION_FUNCTIONS.get(name.rstrip("_"))


def norm_function(name: str) -> str | None:
    """The normalization that a function of that name computes, or is a part of where it is written by hand."""
    return name if name in _NORM_FUNCTIONS else _NORM_PARTS.get(name.rstrip("_"))


def is_weighted_function(name: str) -> bool:
    """Whether a function sums over weights or mixes positions: what lies behind it is another layer."""
    return name in _WEIGHTED_FUNCTIONS


def activation_module(module: nn.Module) -> str | None:
    """The activation that a module is, by its class's name; only for modules without children or own parameters."""
    is_plain = next(module.children(), None) is None and (not module._parameters or isinstance(module, nn.PReLU))
    if not is_plain:
        return None
    return _by_word(type(module).__name__, _ACTIVATION_WORDS)


def norm_module(module: nn.Module) -> str | None:
    """The normalization that a module is, by its class's name; only for modules without children."""
    if next(module.children(), None) is not None:
        return None
    return _by_word(type(module).__name__, _NORM_WORDS)


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalizes."""
    return norm_module(module) is not None


def _by_word(class_name: str, words: tuple[tuple[str, str], ...]) -> str | None:
    flat = class_name.lower().replace("_", "")
    return next((name for word, name in words if word in flat), None)


def channel_axis(module: nn.Module, output: torch.Tensor, before: int | None) -> int:
    """1 where channels come second, else -1. `before`: the axis of the output that this one was made from."""
    if isinstance(module, _CHANNELS_FIRST):
        return 1
    if isinstance(module, _CHANNELS_LAST) or output.dim() < 3:
        return -1
    if before is not None:
        return before
    return 1 if output.dim() > 3 else -1


def effective_fans(module: nn.Module, name: str, weight: torch.Tensor, path: str = "") -> Fans:
    """Effective fans of a parameter, (None, None) where there are none or they are not known.

    Not those of torch.nn.init: grouped, transposed, fused and embedding weights differ (reference: diagnosis 2). A
    projection that is several in one (`path` and shape say so) has the fan_out of one of them.
    """
    if weight.dim() < 2 or name.startswith("bias"):
        return None, None
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return 1.0, float(weight.shape[1])
    if isinstance(module, nn.modules.conv._ConvNd):
        return _conv_fans(module)
    if isinstance(module, nn.RNNBase | nn.modules.rnn.RNNCellBase):
        return float(weight.shape[1]), float(module.hidden_size if isinstance(module.hidden_size, int) else 0) or None
    if isinstance(module, nn.MultiheadAttention):
        return float(weight.shape[1]), float(module.embed_dim)
    if isinstance(module, nn.Bilinear):
        return float(module.in1_features * module.in2_features), float(module.out_features)
    if type(module).__name__ == "Conv1D" and hasattr(module, "nf"):  # transformers: the weight is stored transposed
        return float(weight.shape[0]), _part(path, weight.shape[0], weight.shape[1])
    if isinstance(module, nn.Linear):
        return float(weight.shape[1]), _part(path, weight.shape[1], weight.shape[0])
    return None, None


_FUSED_ATTENTION: Final = re.compile(r"qkv|kqv|c_attn|query_key_value|att_proj")
_FUSED_PAIR: Final = re.compile(r"(^|_)(kv|gate_up|gate_and_up|w12|w1_w2|w13|fc1_gate)(_|$)|gate_up_proj")


def _part(path: str, inputs: int, outputs: int) -> float:
    """Outputs of one part of a fused projection; all of them where it is none.

    Queries, keys and values of attention: a third of exactly three times the width, and the width itself where keys
    and values are shared by several heads (between one and three times). Gate and value of a gated unit, or keys and
    values alone: half.
    """
    last = path.rpartition(".")[2].lower()
    is_fused = _FUSED_ATTENTION.search(last) and inputs < outputs < 3 * inputs
    if is_fused or (outputs == 3 * inputs and (_FUSED_ATTENTION.search(last) or last == "in_proj")):
        return float(inputs)
    if _FUSED_PAIR.search(last) and outputs % 2 == 0:
        return float(outputs // 2)
    return float(outputs)


def _conv_fans(module: Any) -> Fans:
    kernel = math.prod(module.kernel_size)
    into, out = module.in_channels / module.groups * kernel, module.out_channels / module.groups * kernel
    if module.transposed:
        return into / math.prod(module.stride), out
    return into, out
