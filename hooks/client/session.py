"""Which run, attempt and session this process belongs to (ARCHITECTURE: Run identity). No network, no collective."""

from __future__ import annotations

import hashlib
import os
import socket
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from initscope.hooks import vocabulary as v
from initscope.hooks.client.config import Config
from initscope.hooks.client.notices import printable, warn
from initscope.hooks.wire import RunKey, SessionKey


def identify(config: Config, environ: Mapping[str, str] = os.environ) -> tuple[RunKey, SessionKey]:
    """The run (the same on all ranks of a launch) and the session (this process alone).

    The run's identity is `run_id`; else derived from the project and the launcher's id (TORCHELASTIC_RUN_ID unless
    "none", SLURM_JOB_ID); else, with several ranks, from host, launching process and its start; else random.
    """
    world_size = max(1, _integer(environ, "WORLD_SIZE", 1, v.MAX_RANKS))
    rank = min(_integer(environ, "RANK", 0, v.MAX_RANKS - 1), world_size - 1)
    run = RunKey(
        run_id=config.run_id or _derive(config.project, world_size, environ),
        project=config.project,
        name=config.run_name,
        attempt=_attempt(environ),
    )
    session = SessionKey(
        session_id=uuid.uuid4().hex,
        rank=rank,
        world_size=world_size,
        host=_host(),
        pid=os.getpid(),
        started_at=time.time(),
    )
    return run, session


def _derive(project: str, world_size: int, environ: Mapping[str, str]) -> str:
    elastic = environ.get("TORCHELASTIC_RUN_ID", "")
    if elastic and elastic != "none":
        return _digest(project, "torchelastic", elastic)
    if environ.get("SLURM_JOB_ID"):
        return _digest(project, "slurm", environ["SLURM_JOB_ID"])
    if world_size == 1:
        return uuid.uuid4().hex
    if _integer(environ, "LOCAL_WORLD_SIZE", world_size, v.MAX_RANKS) < world_size:
        warn(
            "initscope: ranks on several nodes and no id of the launch, so every node becomes a run of its own. "
            "Give all ranks one INITSCOPE_RUN_ID (or run_id=), or start torchrun with --rdzv-id"
        )
    agent = os.getppid()
    return _digest(project, "agent", _host(), str(agent), _start_time(agent))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def _attempt(environ: Mapping[str, str]) -> int:
    """Restarts so far, as the launchers count them: those of torchrun, after all that each requeue by Slurm allows."""
    restarts = _integer(environ, "TORCHELASTIC_RESTART_COUNT", 0, 1_000)
    requeues = _integer(environ, "SLURM_RESTART_COUNT", 0, 1_000)
    return requeues * (1 + _integer(environ, "TORCHELASTIC_MAX_RESTARTS", 0, 900)) + restarts


def _start_time(pid: int) -> str:
    """Clock ticks from boot to the start of a process, where /proc tells (field 22 of stat); "" elsewhere."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the command, in parentheses, may hold anything
    return fields[19] if len(fields) > 19 else ""


def _host() -> str:
    return printable(socket.gethostname(), v.MAX_MODULE_PATH)


def _integer(environ: Mapping[str, str], variable: str, default: int, top: int) -> int:
    """A launcher's number. What is none is said and ignored: it is not our setting, and the training decides."""
    text = environ.get(variable, "")
    if not text:
        return default
    if text.isascii() and text.isdigit() and int(text[:20]) <= top:
        return int(text)
    told = printable(text, 40)
    warn("initscope: %s is %r, not a number from 0 to %d; taken as %d", variable, told, top, default, about=variable)
    return default
