# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One HTTP request and its answer, whatever the other side does: bounded in time and in size. Standard library only.

An answer of any status is an answer. Redirects are not followed, no .netrc is read, and a proxy is asked only where the
caller says so.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.request
from typing import Any, Callable, NamedTuple

MAX_BODY_BYTES = 8 * 1024 * 1024


class Answer(NamedTuple):
    """body: at most the bytes that the caller allows, one more than that where the answer is larger."""

    status: int
    headers: Any
    body: bytes


def exchange(
    method: str,
    url: str,
    seconds: float,
    headers: dict[str, str] | None = None,
    data: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    proxied: bool = False,
    most_bytes: int = MAX_BODY_BYTES,
) -> Answer:
    """Return the answer to a request. tls: for https. Raises OSError, TimeoutError among them, or
    http.client.HTTPException without one."""
    request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
    with _Deadline(seconds) as deadline:
        opener = urllib.request.OpenerDirector()
        for handler in (urllib.request.ProxyHandler(None if proxied else {}), _Handler(tls, deadline)):
            opener.add_handler(handler)
        try:
            with opener.open(request, timeout=seconds) as response:
                answer = Answer(response.getcode(), response.headers, response.read(most_bytes + 1))
        except (OSError, http.client.HTTPException):  # URLError and SSLError are OSErrors
            if deadline.over:
                raise TimeoutError(f"timed out after {seconds:g} s") from None
            raise
    if deadline.over:
        raise TimeoutError(f"timed out after {seconds:g} s")
    return answer


def name_of(error: Exception) -> str:
    """Return the key of protocol.TRANSPORT for what exchange() raised."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLError):
        return "tls"
    if isinstance(reason, socket.gaierror):
        return "dns"
    if isinstance(reason, (socket.timeout, TimeoutError)):
        return "timeout"
    if isinstance(reason, ConnectionRefusedError):
        return "refused"
    if isinstance(reason, (http.client.RemoteDisconnected, http.client.BadStatusLine, http.client.IncompleteRead)):
        return "empty"
    return "reset" if isinstance(reason, ConnectionError) else "other"


class _Deadline:
    """Ends the connections of a request when its time is over. urllib's own limit holds for a single read: a server
    that sends a byte now and then would keep a task for hours."""

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_arguments: object) -> None:
        self._timer.cancel()

    def watch(self, kind: type) -> Callable[..., http.client.HTTPConnection]:
        """Return a kind of connection that this deadline ends."""
        deadline = self

        class Watched(kind):  # pylint: disable=missing-class-docstring
            def connect(self) -> None:
                super().connect()
                deadline._sockets.append(self.sock)
                if deadline.over:  # it passed while the connection was made
                    deadline._end()

        return Watched

    def _end(self) -> None:
        self.over = True
        for handle in self._sockets:
            try:
                socket.socket.shutdown(handle, socket.SHUT_RDWR)  # of TLS too, whose own end would wait for an answer
            except OSError:
                pass  # it is closed


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens HTTP and HTTPS."""

    def __init__(self, tls: ssl.SSLContext | None, deadline: _Deadline) -> None:
        super().__init__()
        self._tls, self._deadline = tls, deadline

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._deadline.watch(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._deadline.watch(http.client.HTTPSConnection), request, context=self._tls)
