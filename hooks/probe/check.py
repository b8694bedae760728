"""`check`: one look at a model before its training, and one forward and backward, that leave no trace."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import torch
from torch import nn

from initscope.hooks import rule_file
from initscope.hooks.client import Guard, resolve
from initscope.hooks.client.notices import printable
from initscope.hooks.moments import TensorStats
from initscope.hooks.probe import choices
from initscope.hooks.probe.acting import Alarm
from initscope.hooks.probe.batch import Call, LossFn, NoLossError, arranged, is_noise, loss_from
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.graph import structure_of
from initscope.hooks.probe.loss import loss_of
from initscope.hooks.probe.observe import Trace
from initscope.hooks.probe.passing import Passing
from initscope.hooks.probe.recording import Recording
from initscope.hooks.probe.story import Sink, Story
from initscope.hooks.probe.take import Record
from initscope.hooks.probe.untouched import untouched, unwatched, without_gradients
from initscope.hooks.probe.walk import unwrapped, walk
from initscope.hooks.report import Passed, Report, blocks_of, rows_of
from initscope.hooks.rules import Model, Window, diagnose
from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import Kind, RunStatus
from initscope.hooks.wire import RunDescription, TensorInfo


class CheckError(RuntimeError):
    """The model, its loss or its backward pass raised; the cause is what they raised. Nothing was changed."""


def check(
    model: nn.Module,
    batch: Any = None,
    loss_fn: LossFn | None = None,
    *,
    optimizer: Any = None,
    rules: rule_file.Given = None,
    include: choices.Patterns = None,
    exclude: choices.Patterns = None,
) -> Report:
    """Judges a start before it is trained: `print(check(model, batch, loss_fn))`.

    Without a batch the weights alone. With one, everything that `watch` measures at its first step, of one forward and
    one backward in training mode; no optimizer steps. Afterwards the model is bitwise what it was: weights, gradients,
    buffers, flags, hooks and the state of random generators. A model that `watch` watches may be checked, too.

    - `batch`: what goes into the model: a tensor, or a tuple of arguments, or a dict of keyword arguments. With
      `loss_fn` a pair is (inputs, target) as a data loader gives it, and `loss_fn(output, target)` is the loss; what
      is no pair is its own target. Without `loss_fn`, the output's `loss` or the output itself if it is one number;
      else the backward pass starts from fixed random numbers and the loss is not judged.
    - `optimizer`: one or several; only described, for rules that depend on its kind and learning rate.
    - `rules`: thresholds by rule, the path of a file of them (INITSCOPE_RULES), or the only rules that judge.
    - `include`, `exclude`: patterns of module paths, as for `watch`.

    Raises TypeError or ValueError for what cannot be used, and CheckError where the model, the loss or the backward
    pass raises.
    """
    _refuse(model, batch, loss_fn)
    settings = resolve()
    if settings.disabled:
        return Report(notes=("initscope is switched off (INITSCOPE_DISABLED)",))
    choice = choices.Choice.of(optimizer, None, (), None, choices.selection(include, exclude), None)
    selection = rule_file.chosen(rules, settings.rules)
    look = _Look(unwrapped(model), choice)
    look.take(batch, loss_fn)
    return look.report(selection)


_ON_SIGNAL: Final = "collapse"
"""The family of rules that compare samples."""
_UNKNOWN: Final = torch.empty(0)
"""Stands for an output of unknown shape."""


def start_of(model: nn.Module, batch: Any = None, loss_fn: LossFn | None = None, *, optimizer: Any = None) -> Window:
    """What `check` judges, without a verdict: the window of its step. Arguments and errors are those of `check`."""
    _refuse(model, batch, loss_fn)
    look = _Look(unwrapped(model), choices.Choice.of(optimizer, None, (), None, choices.selection(None, None), None))
    look.take(batch, loss_fn)
    return look.window()


def draw_alike(seed: int = 0) -> None:
    """Sets the generators of torch and Python, so that models that are made after it draw the same numbers."""
    torch.manual_seed(seed)
    random.seed(seed)


def _refuse(model: nn.Module, batch: Any, loss_fn: LossFn | None) -> None:
    choices.refuse("check", model)
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(f"loss_fn: a function of output and target, got {type(loss_fn).__name__}")
    if loss_fn is not None and batch is None:
        raise TypeError("loss_fn: needs a batch; leave it out to judge the weights alone")


class _Look(Sink):
    """One take of a model, and what it says; a sink that keeps it."""

    def __init__(self, root: nn.Module, choice: choices.Choice) -> None:
        self._root = root
        self._step = choice.first_step
        self._guard = Guard(limit=None, passes=choices.device_errors())
        self._tree = walk(root, choice.select)
        self._registry = Registry(self._tree)
        self._story = Story([self], self._registry, self._guard, choice.describe(root, self._tree))
        self._description = RunDescription()
        self._model = Model({})
        self._records: dict[int, TensorStats] = {}
        self._passed: Mapping[str, Passed] = {}
        self._loss: float | None = None
        self._has_forward = self._has_backward = self._is_noise = False
        self._notes: list[str] = []

    def take(self, batch: Any, loss_fn: LossFn | None) -> None:
        """Runs the model, if there is a batch for it."""
        scripted = choices.is_scripted(self._root)
        if scripted and batch is not None:
            self._notes.append("the model is TorchScript, which takes no hooks: only its weights are judged")
        call = None if batch is None or scripted else arranged(self._root, batch, loss_fn)
        with unwatched(self._root), untouched(self._root, batch, loss_fn), _eager(self._root):
            recording = self._record(is_scripted=scripted)
            try:
                if call is None:
                    self._read_order()
                    recording.read_weights()
                else:
                    with Passing(self._tree, self._guard) as passing:
                        self._run(recording, call, loss_fn)
                    self._passed = passing.found()
            finally:
                recording.close()

    def window(self) -> Window:
        """What the rules see of it."""
        scalars = {} if self._loss is None else {"loss": [(self._step, self._loss)]}
        return Window(self._model, {self._step: self._records}, self._records, self._step, scalars)

    def report(self, selection: Selection) -> Report:
        """What the rules say of it."""
        window = self.window()
        if self._guard.errors:
            self._notes.append(f"{self._guard.errors} errors of initscope itself: some statistics are missing")
        rules = selection.active
        if self._is_noise:
            rules = tuple(rule for rule in rules if rule.family != _ON_SIGNAL)
            self._notes.append(
                "the input is noise: whether outputs depend on it was not judged, a batch of real data would show it"
            )
        return Report(
            findings=tuple(diagnose(window, rules, selection.limits)),
            scheme=window.recognition.scheme,
            is_trained=window.recognition.is_trained,
            layers=rows_of(window, self._passed),
            blocks=blocks_of(window),
            description=self._description,
            loss=self._loss,
            has_forward=self._has_forward,
            has_backward=self._has_backward,
            notes=(*self._description.notes, *self._notes),
        )

    def _record(self, *, is_scripted: bool) -> Recording:
        return Recording(
            self._root,
            self._tree,
            self._registry,
            self._guard,
            is_due=lambda _: True,
            step=self._step,
            with_parameters=True,
            is_compiled=is_scripted,
            tell=self._story,
            alarm=Alarm(),
        )

    def _read_order(self) -> None:
        """What a forward would show, where the model's class alone says it: a chain, and chains in a chain.

        Outputs are described although none is measured, so that rules on weights see which layer feeds which.
        """
        sites = [site for path, site in self._tree.sites.items() if path]
        leaves = [site for site in sites if next(site.module.children(), None) is None]
        chains = [site.module for site in sites if site not in leaves]
        if not all(type(module) is nn.Sequential for module in (self._root, *chains)):
            self._notes.append(
                "without a batch it is not known which layer feeds which: scale over depth was not judged"
            )
            return
        for site in leaves:
            if site.watched:
                self._registry.key(site, "output", Kind.ACTIVATION, _UNKNOWN)
        trace = Trace(order=[site.path for site in leaves])
        self._registry.refine(trace, structure_of(trace, self._tree))

    def _run(self, recording: Recording, call: Call, loss_fn: LossFn | None) -> None:
        self._notes += call.notes
        with torch.inference_mode(False), torch.enable_grad():
            if not self._root.training:
                self._root.train()
            self._is_noise = is_noise(call)
            with _Told(f"the forward pass, {call},"):
                output = self._root(*call.args, **call.kwargs)
            self._has_forward = True
            with _Told("the loss"):
                loss, is_own = loss_from(loss_fn, output, call)
            if is_own:
                self._loss = float(loss.detach())
                self._story.loss(loss_of(loss))
            else:
                self._notes.append(
                    "no loss is known (give loss_fn): the backward pass began with random numbers, the loss was not "
                    "judged"
                )
            if not loss.requires_grad:
                self._notes.append("no backward pass: the loss does not depend on anything that requires a gradient")
                return
            with without_gradients(loss), _Told("the backward pass"):
                loss.backward()  # type: ignore[no-untyped-call]
                recording.read_gradients()
            self._has_backward = True

    # -- as a sink -----------------------------------------------------------------------------------------------------

    def describe(self, description: RunDescription, tensors: Sequence[TensorInfo]) -> None:
        """What the records are about."""
        self._description = description
        self._model = Model({t.key: t for t in tensors}, description)

    def record(self, _step: int, _count: int, rows: Callable[[], Sequence[Record]]) -> bool:
        """The records of the only step."""
        self._records = dict(rows())
        return True

    def scalar(self, _step: int, _name: str, _value: float | Callable[[], float]) -> bool:
        """Nothing is logged."""
        return True

    def reached(self, step: int) -> None:
        """No step follows."""

    def close(self, status: RunStatus, timeout: float | None = None) -> None:
        """Nothing is kept open."""


class _Told:
    """Errors of the user's code become a `CheckError` that says where they come from."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, NoLossError):
            raise TypeError(f"check: {error}") from None
        if isinstance(error, Exception):
            words = printable(str(error).strip().partition("\n")[0], 300)
            said = f"check: {self._what} raised {type(error).__name__}{': ' if words else ''}{words}"
            raise CheckError(said) from error


@contextmanager
def _eager(root: nn.Module) -> Iterator[None]:
    """What torch.compile made is not run: it takes no hooks, and compiling takes minutes."""
    if not choices.is_compiled(root):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
