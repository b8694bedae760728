"""What ingest counted since the process began; the exporter shows it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Tally:
    """Counters by (name, label). Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, name: str, amount: int = 1, label: str = "") -> None:
        """Raises one counter.

        Names: batches (label accepted or duplicate), records, scalars, rejected (label: code of the record),
        unknown_fields, refused (label: code of the request), heartbeats.
        """
        if amount:
            with self._lock:
                self._counts[name, label] += amount

    def snapshot(self) -> Mapping[tuple[str, str], int]:
        """All counts at one moment."""
        with self._lock:
            return dict(self._counts)
