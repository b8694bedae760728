"""Which tensors of a run are known: a cache over the table, so that most batches ask nothing."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

from sqlalchemy import Connection

from initscope.hooks.vocabulary import MAX_TENSORS_PER_RUN
from initscope.hooks.wire import TensorInfo
from initscope.service.ingest.refusal import Refusal
from initscope.service.store import writes
from initscope.service.store.writes import RunState

_MAX_CACHED: Final = 200_000
"""Tensors in the cache, over all runs."""

RunId: TypeAlias = tuple[int, datetime]
"""Number and birth of a run: SQLite may give a deleted run's number to a new one."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """The tensors of a run. Never changed: a batch that describes more makes a new one."""

    numbers: Mapping[int, int] = field(default_factory=dict)
    """tensor_no by key."""
    identities: Mapping[int, tuple[str, str, str]] = field(default_factory=dict)
    """(module_path, name, kind) by key."""
    seen: Mapping[int, int] = field(default_factory=dict)
    """Hash of the last description by key; absent where this process has not seen one."""


class Catalogs:
    """Catalogs of the runs that were last written. Thread-safe; entries come from committed transactions only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._catalogs: OrderedDict[RunId, Catalog] = OrderedDict()

    def get(self, run: RunState) -> Catalog | None:
        """The run's catalog, if it is cached."""
        with self._lock:
            catalog = self._catalogs.get((run.run_no, run.created_at))
            if catalog is not None:
                self._catalogs.move_to_end((run.run_no, run.created_at))
            return catalog

    def put(self, run: RunState, catalog: Catalog) -> None:
        """Keeps a catalog after its transaction was committed; the least used go."""
        with self._lock:
            self._catalogs[run.run_no, run.created_at] = catalog
            while len(self._catalogs) > 1 and sum(len(c.numbers) for c in self._catalogs.values()) > _MAX_CACHED:
                self._catalogs.popitem(last=False)


def load(connection: Connection, run_no: int) -> Catalog:
    """The catalog as the database has it."""
    stored = writes.load_tensors(connection, run_no)
    return Catalog(
        {key: tensor.tensor_no for key, tensor in stored.items()},
        {key: tensor.identity for key, tensor in stored.items()},
    )


def describe(connection: Connection, run_no: int, catalog: Catalog, infos: Sequence[TensorInfo]) -> Catalog:
    """Stores descriptions that are new or changed; the catalog with them.

    A run keeps at most `MAX_TENSORS_PER_RUN` tensors: records of the others are rejected one by one. A key that means
    two tensors, or a tensor with two keys, is refused with 409.
    """
    hashes = {info.key: hash(repr(info)) for info in infos}
    changed = [info for info in infos if catalog.seen.get(info.key) != hashes[info.key]]
    if not changed:
        return catalog
    _check_identities(catalog, infos)
    room = MAX_TENSORS_PER_RUN - len(catalog.numbers)
    fresh = {info.key for info in changed if info.key not in catalog.numbers}
    beyond = set(sorted(fresh)[max(room, 0) :])
    kept = {info.key: info for info in changed if info.key not in beyond}
    if not kept:
        return catalog
    writes.save_tensors(connection, run_no, kept.values())
    newest = load(connection, run_no) if fresh - beyond else catalog
    return Catalog(newest.numbers, newest.identities, {**catalog.seen, **{key: hashes[key] for key in kept}})


def _check_identities(catalog: Catalog, infos: Sequence[TensorInfo]) -> None:
    by_identity = {identity: key for key, identity in catalog.identities.items()}
    by_key = dict(catalog.identities)
    for index, info in enumerate(infos):
        identity = (info.module_path, info.name, info.kind.value)
        if by_key.setdefault(info.key, identity) != identity:
            raise _conflict(index, "stands for another tensor of this run")
        if by_identity.setdefault(identity, info.key) != info.key:
            raise _conflict(index, "is a second key of the same tensor")


def _conflict(index: int, message: str) -> Refusal:
    return Refusal(
        409, "tensor_conflict", f"this key {message}", field=f"tensors.{index}.key",
        hint="derive keys with initscope.hooks.wire.tensor_key",
    )  # fmt: skip
