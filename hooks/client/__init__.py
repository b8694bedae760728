"""The way from the training thread to the collector: bounded queue, one sender thread, exact books.

Standard library only. Nothing here makes the training wait: see `Client.record` and `Client.close`.
"""

from __future__ import annotations

from initscope.hooks.client.client import Client
from initscope.hooks.client.config import Config, ConfigError, resolve
from initscope.hooks.client.guard import Guard
from initscope.hooks.client.session import identify

__all__ = ["Client", "Config", "ConfigError", "Guard", "identify", "resolve"]
