"""`watch`: one line in a training script; and the Monitor that it returns."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, Self

import torch
from torch import nn

from initscope.hooks import rule_file
from initscope.hooks.client import Client, Config, Guard, identify, resolve
from initscope.hooks.client.notices import printable, warn
from initscope.hooks.probe import choices
from initscope.hooks.probe.acting import Action, Alarm, OnFinding
from initscope.hooks.probe.describe import Registry
from initscope.hooks.probe.local import LocalDiagnosis
from initscope.hooks.probe.loss import loss_of
from initscope.hooks.probe.recording import Recording
from initscope.hooks.probe.schedule import Given
from initscope.hooks.probe.story import Sink, Story
from initscope.hooks.probe.walk import unwrapped, walk
from initscope.hooks.rules import Finding
from initscope.hooks.rules.badstart import BadStart
from initscope.hooks.rules.selection import Selection
from initscope.hooks.vocabulary import MAX_NAME, RunStatus
from initscope.hooks.wire import RunDescription, RunKey, SessionKey, run_uuid


class Monitor:
    """A watched model. Made by `watch`; a no-op when disabled, in a forked child, and after `close`."""

    def __init__(
        self,
        recording: Recording | None = None,
        story: Story | None = None,
        *,
        run: RunKey | None = None,
        local: LocalDiagnosis | None = None,
        url: str | None = None,
        model: nn.Module | None = None,
        alarm: Alarm | None = None,
        flush_timeout: float = 0.0,
    ) -> None:
        self.run_id = run.run_id if run else ""
        self.url = url
        """The collector's address, None without one."""
        self.page = _page(url, run) if url and run else None
        """The run's page, None without a collector."""
        self._recording = recording
        self._story = story
        self._local = local
        self._model = model
        self._alarm = alarm or Alarm()
        self._alarm.on_ring = self._fail
        self._flush_timeout = flush_timeout
        self._error_before = _last_error()
        self._pid = os.getpid()

    @property
    def current_step(self) -> int:
        """Optimizer steps completed so far."""
        return self._recording.step if self._recording else 0

    @property
    def is_closed(self) -> bool:
        """Whether nothing is measured any more."""
        return self._recording is None or self._recording.is_closed

    def log(self, **scalars: float | torch.Tensor) -> None:
        """Notes numbers of the step that the last training forward began: `log(loss=loss, grad_norm=norm)`.

        Tensors of one element are accepted and never waited for. A logged `loss` tensor that still has its graph says
        which loss it is. What is no number is refused with a warning, not with an error: this stands in a training.
        """
        if self._story is None or self._recording is None or self.is_closed or self._pid != os.getpid():
            return
        for name, value in scalars.items():
            with self._story.guard.shield("log"):
                _log(self._story, self._recording.forward_step, name, value)

    def step(self) -> None:
        """Ends a step, in loops without a torch.optim optimizer. Does nothing where an optimizer counts the steps."""
        if self._recording is not None and self._pid == os.getpid():
            self._recording.manual_step()

    @property
    def findings(self) -> list[Finding]:
        """What the diagnosis in this process found and is still open, worst first.

        Waits until what was measured so far is judged. With a url the collector diagnoses: this list is then empty,
        unless `on_finding` asked for a diagnosis here as well.
        """
        return self._local.open_findings() if self._local else []

    def report(self) -> str:
        """The verdict and the open findings in text; with a url, where to look."""
        if self._recording is None:
            return "initscope is switched off (INITSCOPE_DISABLED)"
        if self._local is None:
            return f"initscope: the collector diagnoses this run: {self.page}"
        return self._local.report()

    def close(self, status: RunStatus | str = RunStatus.FINISHED) -> None:
        """Takes every hook away and delivers what is left, for at most the flush timeout. Can be called twice."""
        self._close(RunStatus(status), self._flush_timeout)

    def _fail(self) -> None:
        self.close(RunStatus.FAILED)

    def _close(self, status: RunStatus, timeout: float) -> None:
        if self._recording is None or self._story is None or self.is_closed or self._pid != os.getpid():
            return
        self._alarm.disarm()
        self._recording.close()
        _live.pop(id(self._model), None)
        self._model = None
        self._story.close(status, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(RunStatus.FINISHED if kind is None else RunStatus.FAILED)

    def __reduce__(self) -> tuple[type[Monitor], tuple[()]]:
        # A monitor that is an attribute of the user's object must not keep that from being saved or copied.
        return Monitor, ()


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
    *,
    run: str | None = None,
    run_id: str | None = None,
    project: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    url: str | None = None,
    token: str | None = None,
    schedule: Given = None,
    include: choices.Patterns = None,
    exclude: choices.Patterns = None,
    step: int | None = None,
    rules: rule_file.Given = None,
    on_finding: OnFinding | None = None,
) -> Monitor:
    """Watches the start of a training: `watch(model)` is enough.

    Call it after the weights are in place, before the first training forward. Returns the monitor, the same one if
    the model is watched already. Raises TypeError or ValueError for what cannot be used; the message names it.
    The monitor keeps the model until it is closed: where one process trains several, use `with watch(model):`.

    - `model`: wrapped or not. `optimizer`: one or several; found by itself when it steps, given, its state says which
      step this is. `step`: optimizer steps completed before this training.
    - `run`: a name that is shown. `run_id`: the identity, the same for all ranks and restarts. `project`, `config` and
      `tags`: what to find the run by.
    - `url`, `token`: a collector's address (INITSCOPE_URL) and token (INITSCOPE_TOKEN, or the file of a collector on
      this host). Without a url the diagnosis is made here and told on standard error.
    - `schedule`: every how many steps, a collection of steps, or a function of the step. Default: each step to 20,
      every 10th to 200, every 100th to 10,000, then every 1,000th.
    - `include`, `exclude`: patterns of module paths (`blocks.*`) that are watched, default all, and that are not.
    - `rules`: thresholds by rule and name, `{"forward-drift": {"warning": 4.0}, "initial-loss": False}`; or the path of
      a file of them (INITSCOPE_RULES); or the only rules that judge, for a diagnosis in this process.
    - `on_finding`: `"print"`, `"raise"` or a function (INITSCOPE_ON_FINDING for the first two), which makes the
      diagnosis here also with a url. A function is called on another thread with each finding that opens. `"raise"`
      raises `BadStart` once a critical finding has opened, at the next training forward or optimizer step: the
      diagnosis runs beside the training, so that is one or two steps after the step that showed it.
    """
    choices.refuse("watch", model)
    settings = resolve(url=url, token=token, project=project, run=run, run_id=run_id)
    known = _live.get(id(unwrapped(model)))
    if settings.disabled or known is not None:
        return known or Monitor()
    choice = choices.Choice.of(optimizer, config, tags, schedule, choices.selection(include, exclude), step)
    action = Action.of(settings.on_finding if on_finding is None else on_finding, with_url=settings.active)
    if action is None and rule_file.has_rules(rules):
        raise ValueError(
            "rules: with a url the collector diagnoses, by its own rules: name the module that registers yours in the "
            "`plugins` of its rules file (initscope serve --rules FILE); or set on_finding, to judge by them here too"
        )
    return _start(model, settings, choice, rule_file.chosen(rules, settings.rules), action)


def _start(
    model: nn.Module, settings: Config, choice: choices.Choice, selection: Selection, action: Action | None
) -> Monitor:
    key, session = identify(settings)
    guard = Guard(passes=(*choices.device_errors(), BadStart))
    root = unwrapped(model)
    tree = walk(model, choice.select)
    alarm = Alarm(armed=action is not None and action.raises)
    local = None
    if action is not None:
        local = LocalDiagnosis(selection, action=action, alarm=alarm, about=_scope(settings, key, session))
    client = Client(settings, key, session, guard=guard) if settings.active else None
    sinks: list[Sink] = [sink for sink in (client, local) if sink is not None]
    registry = Registry(tree)
    story = Story(
        sinks,
        registry,
        guard,
        _describe(choice.describe(root, tree), selection),
        is_one_of_many=session.world_size > 1,
    )
    recording = Recording(
        model,
        tree,
        registry,
        guard,
        is_due=choice.is_due,
        step=choice.first_step,
        # Replicas are equal: one of them tells of the parameters, all tell of their own activations.
        with_parameters=session.rank == 0,
        is_compiled=choices.is_compiled(model),
        tell=story,
        alarm=alarm,
    )
    story.describe()
    monitor = _live[id(root)] = Monitor(
        recording,
        story,
        run=key,
        local=local,
        url=settings.url,
        model=root,
        alarm=alarm,
        flush_timeout=settings.flush_timeout,
    )
    if client is not None and session.rank == 0:
        with guard.shield("announcement"):
            _announce(key.name, monitor.page)
    return monitor


def _describe(description: RunDescription, selection: Selection) -> RunDescription:
    """With the thresholds of this run, by which a collector judges it."""
    limits = {rule_id: dict(limits) for rule_id, limits in selection.limits.items()}
    return replace(description, limits=limits, disabled_rules=sorted(selection.disabled))


def _scope(settings: Config, key: RunKey, session: SessionKey) -> str:
    """What a diagnosis in this process cannot see; nothing where it sees everything."""
    if settings.url is None and session.world_size == 1:
        return ""
    sentence = f"initscope: judged in this process, by what rank {session.rank} of {session.world_size} shows alone"
    return f"{sentence}; the collector judges the whole run: {_page(settings.url, key)}" if settings.url else sentence


def _page(url: str, run: RunKey) -> str:
    return f"{url.rstrip('/')}/runs/{run_uuid(run.project, run.run_id)}"


def _announce(name: str, page: str | None) -> None:
    """One line for the person at the terminal: where to look."""
    if sys.stderr is not None:
        sys.stderr.write(f"initscope: watching {printable(name)!r}, page {page}\n")


def _log(story: Story, step: int, name: str, value: float | torch.Tensor) -> None:
    if not 0 < len(name) <= MAX_NAME:
        warn("initscope: log: a name has 1 to %d characters, got %d", MAX_NAME, len(name))
    elif not isinstance(value, torch.Tensor):
        try:
            story.scalar(step, name, float(value))
        except (TypeError, ValueError, OverflowError):
            warn("initscope: log(%s=…) takes a number or a tensor, got %s", name, type(value).__name__)
    elif value.numel() != 1 or value.is_complex():
        warn("initscope: log(%s=…) takes one real number, got a tensor of shape %s", name, tuple(value.shape))
    else:
        if name == "loss" and value.grad_fn is not None:
            story.loss(loss_of(value))
        kept = value.detach().clone()
        story.scalar(step, name, lambda: float(kept))


_live: Final[dict[int, Monitor]] = {}
"""Monitors that are not closed, by id of their model (which they keep alive, so that the id stays its own)."""


def _last_error() -> BaseException | None:
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


def _close_all() -> None:
    """At exit. All monitors share the time of one: two dead collectors must not delay the exit twice."""
    started = time.monotonic()
    for monitor in list(_live.values()):
        error = _last_error()
        failed = error is not None and error is not monitor._error_before and not hasattr(sys, "ps1")
        left = max(0.0, monitor._flush_timeout - (time.monotonic() - started))
        monitor._close(RunStatus.FAILED if failed else RunStatus.FINISHED, left)


def _forget_all() -> None:
    """In a forked child the thread and the connection are the parent's: hooks do nothing."""
    for monitor in list(_live.values()):
        if monitor._recording is not None:
            monitor._recording.is_closed = True
    _live.clear()


# Registered after the client's: it runs before, and hands over what the client then delivers.
atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
