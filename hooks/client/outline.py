"""What the collector must know of a run besides its rows: sent along until a batch with it is acknowledged."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from initscope.hooks import vocabulary as v
from initscope.hooks.client.notices import printable, warn
from initscope.hooks.wire import RunDescription, TensorInfo

_TENSORS_A_BATCH: Final = 500
"""Describing more in one piece would hold the interpreter lock for long; the rest goes in batches of its own."""
_MOST_NEWS: Final = 1_000
_DEPTH: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """The part of an outline that one batch carries."""

    description: RunDescription | None
    tensors: tuple[TensorInfo, ...]
    digests: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.description is not None or bool(self.tensors or self.digests)


class Outline:
    """`tell` may be called by any thread and never waits; everything else belongs to the sender."""

    def __init__(self) -> None:
        self._news: deque[Carried] = deque()
        self._description: RunDescription | None = None
        self._tensors: dict[int, TensorInfo] = {}
        self._digests: Mapping[str, str] = {}
        self._most = _TENSORS_A_BATCH
        self._careful = False

    def tell(self, description: RunDescription | None, tensors: Sequence[TensorInfo]) -> bool:
        """Takes a description that replaces the one before, and tensors that add to those before."""
        if len(self._news) >= _MOST_NEWS:
            return False
        self._news.append(Carried(tidy(description) if description is not None else None, tuple(tensors)))
        return True

    def compare(self, digests: Mapping[str, str]) -> None:
        """Takes what stands for this rank's parameters; as many as the wire carries."""
        limit = v.MAX_MODULE_PATH
        self._digests = {clean(name, limit): clean(x, limit) for name, x in [*digests.items()][: v.MAX_DIGESTS]}

    def absorb(self) -> None:
        """Takes in what was told since the last time."""
        while self._news:
            news = self._news.popleft()
            if news.description is not None:
                self._description = news.description
            self._tensors.update((tensor.key, tensor) for tensor in news.tensors)

    @property
    def waiting(self) -> bool:
        """Whether there is something that no acknowledged batch has carried."""
        return bool(self._news or self._tensors or self._description or self._digests)

    @property
    def overflows(self) -> bool:
        """Whether one batch cannot carry it all, so that batches without rows must go in front."""
        return len(self._tensors) > self._most or (self._careful and self._description is not None)

    def carry(self) -> Carried:
        """What the next batch carries; after a refusal the description goes alone, to tell what was refused."""
        if self._careful and self._description is not None:
            return Carried(self._description, ())
        return Carried(self._description, tuple(self._tensors.values())[: self._most], self._digests)

    def acknowledge(self, carried: Carried) -> None:
        """A batch with this part was committed."""
        self._most = min(_TENSORS_A_BATCH, self._most * 2)
        self._forget(carried)

    def refused(self, carried: Carried) -> bool:
        """A batch with this part was refused for good: carry less at a time, until what is refused stands alone.

        That is then left out, with a warning. False if nothing was carried, so that it cannot be the reason.
        """
        if carried.description is not None and carried.tensors:
            self._most = max(1, len(carried.tensors) // 2)
            self._careful = True
        elif len(carried.tensors) > 1:
            self._most = len(carried.tensors) // 2
        elif carried:
            what = carried.tensors[0].module_path if carried.tensors else "this run"
            told = printable(what)
            warn("initscope: the collector refuses the description of %s; it is left out", told, about=what)
            self._forget(carried)
        return bool(carried)

    def give_up(self, carried: Carried) -> None:
        """This part cannot be sent at all."""
        self._forget(carried)

    def _forget(self, carried: Carried) -> None:
        # What was told anew in the meantime is another object, and stays.
        if self._description is carried.description:
            self._description = None
        if self._digests is carried.digests:
            self._digests = {}
        for tensor in carried.tensors:
            if self._tensors.get(tensor.key) is tensor:
                del self._tensors[tensor.key]


def tidy(description: RunDescription) -> RunDescription:
    """The description with a config that any JSON reader takes, within the limits of the wire. A snapshot."""
    return replace(
        description,
        config=_bounded(_plain(description.config, _DEPTH)),
        tags=[tag for tag in (clean(tag, v.MAX_NAME) for tag in description.tags) if tag],
        notes=[clean(note, v.MAX_MODULE_PATH) for note in description.notes],
    )


def clean(text: object, limit: int) -> str:
    """Text that the wire takes: no control characters, no lone surrogates, cut at `limit`."""
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", "?", str(text)[:limit])


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value if type(value) in (type(None), bool, int, float) else str(value)
    if depth > 0 and isinstance(value, Mapping):
        return {clean(key, v.MAX_NAME): _plain(item, depth - 1) for key, item in list(value.items())}
    if depth > 0 and isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, depth - 1) for item in value]
    return clean(value, v.MAX_MODULE_PATH)


def _bounded(config: dict[str, Any]) -> dict[str, Any]:
    """As many entries, in their order, as the collector's limit allows; a note in place of the rest."""
    room = v.MAX_CONFIG_BYTES - 200
    kept: dict[str, Any] = {}
    for key, value in config.items():
        room -= len(json.dumps([key, value])) + 2
        if room < 0:
            kept["…"] = f"{len(config) - len(kept)} entries left out: a config has at most {v.MAX_CONFIG_BYTES} bytes"
            break
        kept[key] = value
    return kept
