"""What a user may give to `watch`, checked and put into the form that the probe works with."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from initscope.hooks.probe.describe import plain_config, versions
from initscope.hooks.probe.optimizers import describe, steps_done
from initscope.hooks.probe.schedule import Given, schedule_from
from initscope.hooks.probe.walk import Tree
from initscope.hooks.vocabulary import MAX_NAME
from initscope.hooks.wire import RunDescription

Patterns = str | Sequence[str] | None


def refuse(verb: str, model: Any) -> None:
    """TypeError or ValueError for a model that `watch` or `check` cannot use: none, lazy, or without values."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{verb}(model): model must be a torch.nn.Module, got {type(model).__name__}")
    lazy = next((name for name, p in model.named_parameters() if isinstance(p, nn.UninitializedParameter)), None)
    if lazy is not None:
        raise ValueError(
            f"{verb}(model): {lazy} is lazy, it has no shape yet; run one forward under torch.no_grad() before {verb}"
        )
    meta = next((name for name, p in model.named_parameters() if p.is_meta), None)
    if meta is not None:
        raise ValueError(
            f"{verb}(model): {meta} is on the meta device, it has no values yet; call {verb} after to_empty() and the "
            "initialization"
        )


def optimizers(given: Any) -> list[torch.optim.Optimizer]:
    """The optimizers given; wrappers are opened at `.optimizer`."""
    if given is None:
        return []
    several = [given] if hasattr(given, "param_groups") or not isinstance(given, Iterable) else list(given)
    opened = [getattr(o, "optimizer", o) if not isinstance(o, torch.optim.Optimizer) else o for o in several]
    for item in opened:
        if not isinstance(item, torch.optim.Optimizer):
            raise TypeError(
                f"optimizer: must be a torch.optim.Optimizer, got {type(item).__name__}; leave it out and call "
                "monitor.step() after each step of another kind of optimizer"
            )
    return opened


def selection(include: Patterns, exclude: Patterns) -> Callable[[str], bool]:
    """Whether a module path is watched: it or a module around it matches `include`, and none matches `exclude`."""
    wanted, unwanted = _patterns("include", include), _patterns("exclude", exclude)

    def select(path: str) -> bool:
        return (not wanted or _matches(path, wanted)) and not _matches(path, unwanted)

    return select


def _patterns(name: str, given: Patterns) -> list[str]:
    if not isinstance(given, str | Iterable | None):
        raise TypeError(f"{name}: patterns of module paths are text, got {type(given).__name__}")
    patterns = [] if given is None else [given] if isinstance(given, str) else list(given)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"{name}: patterns of module paths are text, got {type(pattern).__name__}")
    return patterns


def _matches(path: str, patterns: list[str]) -> bool:
    parts = path.split(".")
    around = [".".join(parts[: n + 1]) for n in range(len(parts))]
    return any(fnmatch.fnmatchcase(p, pattern) for p in around for pattern in patterns)


def first_step(step: int | None, given: Sequence[torch.optim.Optimizer]) -> int:
    """The step that the training begins with."""
    if step is None:
        return max((steps_done(o) for o in given), default=0)
    if isinstance(step, bool) or not isinstance(step, int) or step < 0:
        raise ValueError(f"step: optimizer steps completed before this training, a whole number from 0; got {step!r}")
    return step


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile or TorchScript has part of the model: hooks inside would change it, or are refused."""
    return any(
        name.rpartition(".")[2] == "_orig_mod"
        or isinstance(module, torch.jit.ScriptModule)
        or getattr(module, "_compiled_call_impl", None) is not None
        for name, module in model.named_modules()
    )


def is_scripted(model: nn.Module) -> bool:
    """Whether TorchScript has part of the model."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def device_errors() -> tuple[type[BaseException], ...]:
    """Errors that a device reports late, wherever the next call is: never ours to swallow."""
    found = (getattr(torch, "AcceleratorError", None), getattr(torch.cuda, "CudaError", None))
    return tuple(e for e in found if isinstance(e, type) and issubclass(e, BaseException))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user chose, checked."""

    optimizers: list[torch.optim.Optimizer]
    config: dict[str, Any]
    tags: list[str]
    is_due: Callable[[int], bool]
    select: Callable[[str], bool]
    first_step: int
    notes: list[str]

    @staticmethod
    def of(
        optimizer: Any,
        config: Mapping[str, Any] | None,
        tags: Sequence[str],
        schedule: Given,
        select: Callable[[str], bool],
        step: int | None,
    ) -> Choice:
        """The choice, or TypeError or ValueError that names what cannot be used."""
        given = optimizers(optimizer)
        if (
            isinstance(tags, str)
            or not isinstance(tags, Iterable)
            or not all(isinstance(t, str) and 0 < len(t) <= MAX_NAME for t in tags)
        ):
            raise TypeError(f"tags: a list of words of 1 to {MAX_NAME} characters, got {tags!r}")
        plain, note = plain_config(config)
        first = first_step(step, given)
        return Choice(given, plain, list(tags), schedule_from(schedule), select, first, [note] if note else [])

    def describe(self, root: nn.Module, tree: Tree) -> RunDescription:
        """What is known of the run before its first forward."""
        return RunDescription(
            model_class=type(root).__name__,
            parameter_count=sum(p.numel() for p in root.parameters()),
            first_step=self.first_step,
            config=self.config,
            tags=self.tags,
            optimizers=[info for o in self.optimizers for info in describe(o)],
            # Weights tell in most cases; who knows better says so.
            pretrained=given if isinstance(given := self.config.get("pretrained"), bool) else None,
            versions=versions(),
            notes=[*tree.notes, *self.notes],
        )
