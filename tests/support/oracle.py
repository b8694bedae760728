"""The slow and obvious float64 twin of everything that the probe measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from initscope.hooks.moments import ABSENT, ChannelStats, Moments, TensorStats
from initscope.hooks.rules.window import Model, Window
from initscope.hooks.vocabulary import Kind, Role
from initscope.hooks.wire import OptimizerInfo, RunDescription, TensorInfo, tensor_key

FLAT = {"tanh": 2.0, "sigmoid": 4.0}
"""|z| beyond which an activation is flat."""
DEAD = {"relu", "relu6"}


def moments_of(t: torch.Tensor) -> Moments:
    """Moments by their definitions."""
    x = t.detach().double().flatten()
    finite = x[torch.isfinite(x)]
    counts = (x.numel(), int(x.isnan().sum()), int((x == math.inf).sum()), int((x == -math.inf).sum()))
    zeros = int((x == 0).sum())
    if not finite.numel():
        return Moments(*counts, zeros)
    mean = finite.mean()
    d = finite - mean
    powers = [float((d**k).sum()) for k in (2, 3, 4)]
    return Moments(*counts, zeros, float(mean), *powers, float(finite.min()), float(finite.max()))


def by_sample(t: torch.Tensor, axis: int = -1) -> torch.Tensor | None:
    """(samples, channels): positions averaged; None where a tensor has no such shape."""
    if t.dim() < 2:
        return None
    x = t.detach().double().movedim(axis, -1)
    return x.reshape(x.shape[0], -1, x.shape[-1]).mean(1)


def signal_fraction_of(t: torch.Tensor, axis: int = -1) -> float:
    """Variance across samples ÷ mean square, of activations averaged over positions."""
    h = by_sample(t, axis)
    if h is None or h.shape[0] < 2 or not torch.isfinite(h).all() or not h.any():
        return ABSENT
    return float(h.var(0, unbiased=False).mean() / h.square().mean())


def dead_fraction_of(t: torch.Tensor, axis: int = -1) -> float:
    """Channels never above zero."""
    if t.dim() < 2:
        return ABSENT
    x = t.detach().double().movedim(axis, -1).flatten(0, -2)
    return sum(1 for column in x.T if bool((column <= 0).all())) / x.shape[-1]


def saturated_fraction_of(z: torch.Tensor, activation: str) -> float:
    """Elements of a pre-activation in the flat part of the activation."""
    return float((z.detach().double().abs() > FLAT[activation]).double().mean())


def row_similarity_of(w: torch.Tensor) -> float:
    """Largest |cosine| among at most 64 evenly spaced rows; pairs with a zero row do not count."""
    if w.dim() < 2 or w.shape[0] < 2 or w[0].numel() < 8:
        return ABSENT
    n = w.shape[0]
    picked = range(n) if n <= 64 else [i * n // 64 for i in range(64)]
    rows = [w[i].detach().double().flatten() for i in picked]
    rows = [r / r.norm() for r in rows if r.any() and torch.isfinite(r).all()]
    return max((abs(float(a @ b)) for i, a in enumerate(rows) for b in rows[:i]), default=ABSENT)


def tensor_stats_of(
    t: torch.Tensor, *, channels: bool = False, activation: str | None = None, axis: int = -1, weight: bool = False
) -> TensorStats:
    """A record: of an activation (`channels`, and the activation that follows it) or of a weight (`weight`)."""
    if weight:
        return TensorStats(moments_of(t), ChannelStats(row_similarity=row_similarity_of(t)))
    if not channels:
        return TensorStats(moments_of(t))
    return TensorStats(
        moments_of(t),
        ChannelStats(
            signal_fraction=signal_fraction_of(t, axis),
            dead_fraction=dead_fraction_of(t, axis) if activation in DEAD else ABSENT,
            saturated_fraction=saturated_fraction_of(t, activation) if activation in FLAT else ABSENT,
        ),
    )


ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu", nn.LeakyReLU: "leaky_relu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.GELU: "gelu",
    nn.SiLU: "silu", nn.ELU: "elu", nn.SELU: "selu",
}  # fmt: skip
NORMS: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "batch_norm", nn.BatchNorm2d: "batch_norm", nn.LayerNorm: "layer_norm",
    nn.GroupNorm: "group_norm", nn.RMSNorm: "rms_norm",
}  # fmt: skip
_AXIS_1 = (nn.Conv1d, nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


def fans_of(module: nn.Module) -> tuple[float | None, float | None]:
    """Effective fans of a module's `weight`."""
    if isinstance(module, nn.Linear):
        return float(module.in_features), float(module.out_features)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        kernel = math.prod(module.kernel_size)
        return module.in_channels / module.groups * kernel, module.out_channels / module.groups * kernel
    return (1.0, float(module.embedding_dim)) if isinstance(module, nn.Embedding) else (None, None)


class Recorder:
    """Records a plain network of leaf modules, called once each and in one order, step by step."""

    def __init__(self, model: nn.Module, roles: dict[str, Role], blocks: dict[str, str]) -> None:
        self.model, self.roles, self.blocks = model, roles, blocks
        self.paths = {m: path for path, m in model.named_modules() if not list(m.children())}
        self.order: list[nn.Module] = []
        self.infos: dict[int, TensorInfo] = {}
        self.now: dict[int, TensorStats] = {}
        self._grads: list[tuple[int, torch.Tensor]] = []
        for module in self.paths:
            module.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, _: Any, output: Any) -> None:
        if module not in self.order:
            self.order.append(module)
        self._outputs[module] = output if isinstance(output, torch.Tensor) else output[0]
        kept = self._outputs[module]
        self._copies[module] = kept.detach().clone()
        if kept.requires_grad:
            kept.register_hook(lambda g, m=module: self._gradients.__setitem__(m, g.detach().clone()))

    def run(self, x: torch.Tensor, y: torch.Tensor, loss_fn: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Forward and backward; keeps copies of what the modules showed."""
        self._outputs: dict[nn.Module, torch.Tensor] = {}
        self._copies: dict[nn.Module, torch.Tensor] = {}
        self._gradients: dict[nn.Module, torch.Tensor] = {}
        out = self.model(x)
        if out.dim() > 2 and y.dim() == out.dim() - 1:
            out, y = out.flatten(0, -2), y.flatten()
        loss = loss_fn(out, y)
        loss.backward()
        self._outputs.clear()
        return loss.detach()

    def record(self, before: dict[str, torch.Tensor]) -> dict[int, TensorStats]:
        """The records of the step just made; `before` holds the weights that its forward used."""
        self.now = {}
        for module in self.order:
            axis = 1 if isinstance(module, _AXIS_1) else -1
            stats = tensor_stats_of(self._copies[module], channels=True, activation=self._direct(module), axis=axis)
            self._put(module, "output", Kind.ACTIVATION, stats, self._copies[module])
            if module in self._gradients:
                g = self._gradients[module]
                self._put(module, "output", Kind.ACTIVATION_GRADIENT, tensor_stats_of(g), g)
            for name, p in module.named_parameters(recurse=False):
                old = before[f"{self.paths[module]}.{name}"]
                self._put(module, name, Kind.WEIGHT, tensor_stats_of(old, weight=True), p)
                if p.grad is not None:
                    self._put(module, name, Kind.GRADIENT, tensor_stats_of(p.grad), p)
                    self._put(module, name, Kind.UPDATE, tensor_stats_of(p.detach() - old), p)
        return self.now

    def _put(self, module: nn.Module, name: str, kind: Kind, stats: TensorStats, like: torch.Tensor) -> None:
        path = self.paths[module]
        key = tensor_key(path, name, kind)
        self.now[key] = stats
        if key not in self.infos:
            self.infos[key] = self._describe(module, key, name, kind, like)

    def _describe(self, module: nn.Module, key: int, name: str, kind: Kind, like: torch.Tensor) -> TensorInfo:
        path = self.paths[module]
        after, norm_after = self._after(module)
        before, norm_before = self._before(module)
        fans = fans_of(module) if kind not in (Kind.ACTIVATION, Kind.ACTIVATION_GRADIENT) and like.dim() > 1 else ()
        fan_in, fan_out = fans or (None, None)
        return TensorInfo(
            key=key, module_path=path, name=name, kind=kind, role=self._role(module, name),
            module_type=type(module).__name__, shape=list(like.shape), dtype=str(like.dtype).removeprefix("torch."),
            fan_in=fan_in, fan_out=fan_out, depth=self.order.index(module), block=self.blocks.get(path),
            activation_before=before, activation_after=after, norm_before=norm_before, norm_after=norm_after,
            trainable=all(p.requires_grad for p in module.parameters()),
        )  # fmt: skip

    def _role(self, module: nn.Module, name: str) -> Role:
        path = self.paths[module]
        if f"{path}.{name}" in self.roles or path in self.roles:
            return self.roles.get(f"{path}.{name}", self.roles.get(path, Role.OTHER))
        if isinstance(module, tuple(NORMS)):
            return Role.NORM_BIAS if name == "bias" else Role.NORM_GAIN
        if "bias" in name:
            return Role.BIAS
        if isinstance(module, nn.Embedding):
            return Role.EMBEDDING
        weighted = [m for m in self.order if getattr(m, "weight", None) is not None and m.weight.dim() > 1]
        if module not in weighted:
            return Role.OTHER
        if module is weighted[-1]:
            return Role.OUTPUT
        return Role.INPUT if module is weighted[0] else Role.HIDDEN

    def _direct(self, module: nn.Module) -> str | None:
        """The activation that takes this output as it is; a norm in between moves every threshold."""
        following = self.order[self.order.index(module) + 1 :]
        return ACTIVATIONS.get(type(following[0])) if following else None

    def _after(self, module: nn.Module) -> tuple[str | None, str | None]:
        at = self.order.index(module)
        return _look([*self.order[at + 1 :]])

    def _before(self, module: nn.Module) -> tuple[str | None, str | None]:
        at = self.order.index(module)
        return _look([*reversed(self.order[:at])])


def _look(modules: list[nn.Module]) -> tuple[str | None, str | None]:
    activation = norm = None
    for m in modules:
        if type(m) in ACTIVATIONS:
            activation = activation or ACTIVATIONS[type(m)]
        elif type(m) in NORMS:
            norm = norm or NORMS[type(m)]
        elif getattr(m, "weight", None) is not None:
            break
    return activation, norm


def describe_run(optimizer: torch.optim.Optimizer, loss_fn: Any, x: torch.Tensor, out_features: int) -> RunDescription:
    """What a run's description would say."""
    name = getattr(loss_fn, "__name__", type(loss_fn).__name__)
    name = {"CrossEntropyLoss": "cross_entropy", "MSELoss": "mse", "mse_loss": "mse"}.get(name, name)
    infos = []
    for group in optimizer.param_groups:
        betas = group.get("betas", (None, None))
        infos.append(
            OptimizerInfo(
                name=type(optimizer).__name__,
                lr=group["lr"],
                momentum=group.get("momentum"),
                beta1=betas[0],
                beta2=betas[1],
                eps=group.get("eps"),
                weight_decay=group.get("weight_decay"),
            )
        )
    classes = out_features if name == "cross_entropy" else None
    return RunDescription(optimizers=infos, loss=name, output_classes=classes, batch_size=x.shape[0])


def windows(
    model: nn.Module,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    loss_fn: Callable[..., torch.Tensor],
    steps: int,
    *,
    roles: dict[str, Role] | None = None,
    blocks: dict[str, str] | None = None,
) -> Iterator[Window]:
    """Trains `model` and yields the window of each step.

    For networks whose leaf modules run once each, in one order (activations and norms as modules). `roles` overrides
    the role by module path or by `path.parameter`, `blocks` names the block of a module path.
    """
    recorder = Recorder(model, roles or {}, blocks or {})
    optimizer = make_optimizer(model.parameters())
    history: dict[int, dict[int, TensorStats]] = {}
    losses: list[tuple[int, float]] = []
    for step, (x, y) in zip(range(steps), batches, strict=False):
        before = {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}
        optimizer.zero_grad()
        losses.append((step, float(recorder.run(x, y, loss_fn))))
        optimizer.step()
        history[step] = recorder.record(before)
        classes = recorder._copies[recorder.order[-1]].shape[-1]
        yield Window(
            Model(dict(recorder.infos), describe_run(optimizer, loss_fn, x, classes)),
            {s: history[s] for s in sorted(history)[-20:]},
            history[0],
            0,
            {"loss": list(losses)},
        )
