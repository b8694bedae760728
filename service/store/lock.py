"""One collector for a SQLite database: a lock that the operating system frees, even after kill -9."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from initscope.service.complaint import Complaint


class DatabaseInUse(Complaint):
    """Another process serves this database."""


class ServerLock:
    """Held from construction to `release`. The file stays behind: removing it would let two processes in."""

    def __init__(self, database: Path) -> None:
        path = database.with_name(database.name + ".lock")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip()
            os.close(self._file)
            raise DatabaseInUse(f"another initscope serves the database {database} (process {holder})") from None
        os.truncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Lets the next one in."""
        os.close(self._file)
