"""A collector's read API, asked from the command line."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from initscope.hooks.client.config import ConfigError, resolve
from initscope.service.complaint import Complaint

DEFAULT_URL: Final = "http://127.0.0.1:8642"
_SECONDS: Final = 30.0
_MOST_BYTES: Final = 64 * 2**20
Query: TypeAlias = Mapping[str, str | float | Sequence[str] | Sequence[float] | None]


def add_collector(parser: argparse.ArgumentParser) -> None:
    """--url and --home: where the collector is, and where its token file lies."""
    parser.add_argument("--url", metavar="URL", help=f"the collector [INITSCOPE_URL; {DEFAULT_URL}]")
    parser.add_argument("--home", metavar="HOME", help="folder of the collector's token file [INITSCOPE_HOME]")


class Reader:
    """Asks with the token of INITSCOPE_TOKEN, or on loopback with the one in the home's token file."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self._token = token
        # As the client of a job: through no proxy, and a redirect does not get the token.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Reader:
        """The reader of `add_collector`'s options; a `Complaint` names the one that cannot be used."""
        environment = {**os.environ, **({"INITSCOPE_HOME": arguments.home} if arguments.home else {})}
        # That variable ends the watching of a job; a person who asks wants an answer.
        environment.pop("INITSCOPE_DISABLED", None)
        url = arguments.url or environment.get("INITSCOPE_URL") or DEFAULT_URL
        try:
            config = resolve(url=url, environ=environment)
        except ConfigError as error:
            raise Complaint(str(error)) from None
        return cls(config.url or DEFAULT_URL, config.current_token())

    def get(self, path: str, query: Query | None = None) -> Any:
        """The JSON of a path below /api/v1, with non-finite numbers as words; a `Complaint` for anything else."""
        given = {name: value for name, value in (query or {}).items() if value is not None}
        address = f"{self.url}/api/v1{path}?{urllib.parse.urlencode(given, doseq=True)}"
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        request = urllib.request.Request(address, headers=headers)  # noqa: S310 - `resolve` lets http and https through
        try:
            with self._opener.open(request, timeout=_SECONDS) as response:
                return json.loads(response.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise Complaint(self._refusal(error.code, error.read(_MOST_BYTES))) from None
        except OSError as error:  # URLError and timeouts are
            reason = getattr(error, "reason", None) or error
            raise Complaint(f"the collector at {self.url} does not answer: {reason} (--url, INITSCOPE_URL)") from None
        except ValueError:
            raise Complaint(f"what answers at {self.url} is no collector") from None

    def _refusal(self, status: int, body: bytes) -> str:
        if status == 401:
            return (
                f"the collector at {self.url} wants a token that it knows: set INITSCOPE_TOKEN, "
                "or --home to the folder with its token file"
            )
        try:
            error = json.loads(body)["error"]
            words = [str(error["message"]), *([str(error["hint"])] if error.get("hint") else [])]
        except (ValueError, KeyError, TypeError):
            return f"what answers at {self.url} is no collector: status {status}"
        return "; ".join(words)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any) -> None:
        return None
