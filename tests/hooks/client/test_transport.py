from __future__ import annotations

import gzip
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from initscope.hooks.client.transport import HttpTransport, TransportError, _Connection, _Timed
from initscope.hooks.encoding import to_binary
from initscope.hooks.wire import Batch, Header
from tests.support.collector_stub import CollectorStub, Mode, closed_port
from tests.support.telemetry import RUN, SESSION

BODY = gzip.compress(to_binary(Batch(Header(run=RUN, session=SESSION, sequence=0))))
TOKEN = "secret"
PATH = "/api/v1/batches"


@pytest.fixture
def stub() -> Iterator[CollectorStub]:
    with CollectorStub() as collector:
        yield collector


def transport_to(url: str, token: str | None = TOKEN) -> HttpTransport:
    return HttpTransport(url, lambda: token, 1.0)


def post(transport: HttpTransport, seconds: float = 10.0):
    return transport.post(PATH, BODY, {"Content-Type": "x"}, time.monotonic() + seconds)


def test_it_posts_with_the_token_over_one_kept_connection(stub: CollectorStub) -> None:
    transport = transport_to(stub.url)
    assert [post(transport).status for _ in range(3)] == [200, 200, 200]
    transport.close()
    assert stub.log.connections == 1
    assert stub.log.authorizations == ["Bearer secret"] * 3
    assert stub.log.duplicates == 2


def test_a_path_in_front_of_the_api_is_kept(stub: CollectorStub) -> None:
    transport = transport_to(stub.url + "/base", None)
    assert post(transport).status == 200
    transport.close()
    assert stub.log.treated[0][0] == "/base" + PATH
    assert stub.log.authorizations == [""]


def test_a_connection_that_the_collector_closed_is_replaced_at_once() -> None:
    with CollectorStub() as first:
        transport = transport_to(first.url)
        assert post(transport).status == 200
        port = first.port
    with CollectorStub(port=port) as second:
        assert transport._connection is not None
        transport._connection.sock._raw.shutdown(socket.SHUT_RDWR)
        assert post(transport).status == 200
        assert second.log.connections == 1
    transport.close()


@pytest.mark.parametrize(
    ("mode", "says"),
    [(Mode.RESET, "breaks the connection"), (Mode.TRUNCATED, "breaks the connection"), (Mode.OVERSIZED, "breaks"),
     (Mode.BLACK_HOLE, "does not answer in time"), (Mode.DRIP, "does not answer in time")],
)  # fmt: skip
def test_a_collector_that_misbehaves_is_an_error_within_the_deadline(
    stub: CollectorStub, mode: Mode, says: str
) -> None:
    stub.behave(mode)
    transport = transport_to(stub.url)
    start = time.monotonic()
    with pytest.raises(TransportError, match=says):
        post(transport, seconds=0.7)
    assert time.monotonic() - start < 5  # a drip alone would last an hour
    assert stub.log.seen(mode)
    stub.behave(Mode.OK)
    assert post(transport).status == 200
    transport.close()


def test_statuses_come_through_with_retry_after(stub: CollectorStub) -> None:
    transport = transport_to(stub.url)
    stub.behave(Mode.SLOW_DOWN)
    stub.retry_after = "17"
    answer = post(transport)
    assert (answer.status, answer.retry_after) == (429, 17.0)
    stub.retry_after = "Fri, 31 Dec 2199 23:59:59 GMT"
    later = post(transport).retry_after
    assert later is not None
    assert later > 1e9
    stub.retry_after = "soon"
    assert post(transport).retry_after is None
    stub.behave(Mode.REDIRECT)
    assert post(transport).status == 302
    transport.close()
    assert len(stub.log.treated) == 4  # a redirect is not followed


def test_nobody_listening_is_an_error() -> None:
    with pytest.raises(TransportError, match="refuses connections"):
        post(transport_to(f"http://127.0.0.1:{closed_port()}"))


def test_a_name_that_does_not_resolve_is_an_error() -> None:
    with pytest.raises(TransportError, match="cannot be resolved"):
        post(transport_to("http://no-such-host.invalid:1"))


def test_a_collector_without_tls_is_an_error_for_https(stub: CollectorStub) -> None:
    with pytest.raises(TransportError, match=r"TLS|breaks"):
        post(transport_to(stub.url.replace("http:", "https:")), seconds=2.0)


def test_a_port_that_accepts_nothing_costs_the_connect_timeout_at_most() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):  # more than the backlog takes: further connects hang
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        start = time.monotonic()
        with pytest.raises(TransportError, match="in time"):
            post(transport_to(f"http://127.0.0.1:{full.getsockname()[1]}"))
        assert 0.5 < time.monotonic() - start < 5
        for one in waiting:
            one.close()


def test_a_collector_that_refuses_before_it_has_read_all_is_heard() -> None:
    """It answers 413 and closes: what is still being sent breaks, the answer counts."""
    ours, theirs = socket.socketpair()  # over TCP the kernel may discard the answer with the reset
    theirs.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}")
    theirs.close()
    transport = transport_to("http://127.0.0.1:1")
    transport._connection = _Connection("127.0.0.1", 1, None, 1.0)
    transport._connection.sock = _Timed(ours, transport._connection)
    assert transport.post(PATH, b"x" * 2**20, {}, time.monotonic() + 10).status == 413
    assert transport._connection is None  # half a request is on that connection: it is not used again


def test_the_token_never_gets_into_an_error_or_a_log(stub: CollectorStub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(TransportError) as caught:
        post(transport_to(stub.url, "secret\r\nX-Evil: 1"))
    assert "secret" not in str(caught.value)
    assert "secret" not in caplog.text
