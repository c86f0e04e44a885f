"""What is changed of uvicorn: each line says what a caller would lose without it, where it may become superfluous, and what proves it.

On a caller's connection (`protocol`, `client_connection`):

- A retiring worker answers every request that reached it. uvicorn closes a connection that is idle as it looks, although a
  request may be on its way: 1 in 2,000 was reset by a restart under load. No issue is open; tests/test_restarts.py.
- A head over 64 KB is refused as it arrives, and one that is not whole in time is ended. uvicorn limits neither with
  httptools: https://github.com/Kludex/uvicorn/issues/157; tests/server/test_protocol.py.
- The number of connections has a bound, and the one that has waited longest for a request makes room, so that `/health` is
  always answered. uvicorn can only answer 503: https://github.com/Kludex/uvicorn/issues/865; tests/test_bounds.py.
- An `Upgrade` is ignored, as RFC 9110 (section 7.8) allows, and the body behind it is read:
  https://github.com/Kludex/uvicorn/issues/2722; tests/server/test_protocol.py.
- Trailers are not headers (RFC 9110, section 6.5.1). No issue is open; tests/server/test_protocol.py.
- The end of the client's stream is a disconnect, unless a response of known length is on its way. uvicorn does nothing:
  https://github.com/Kludex/uvicorn/issues/1264; tests/server/test_client_connection.py.
- A pipelined request is read while the one before it is served: else nobody would see that the client left. uvicorn pauses
  reading, and a billed call would go on. No issue is open; tests/server/test_protocol.py.
- A response is not lost by closing the connection while the client still sends (RFC 9112, section 9.6): it is read on for a
  moment. No issue is open; tests/server/test_client_connection.py.
- A client that does not read is given up after IDLE_SECONDS, and what it was to be sent with it. uvicorn waits for ever.
  No issue is open; tests/test_bounds.py.
- What belongs to a connection is let go when it is lost, however it was. uvicorn's keep-alive timer holds it after a reset,
  and with it what was sent. No issue is open; tests/test_leftovers.py.

Of a response (`cycle`):

- Its pieces are written in one system call, without being joined, and let go of on the way (`banana.pieces`, an extension of
  ASGI): a response of megabytes is held once, not twice. No issue is open; tests/server/test_cycle.py, `python -m bench`.
- It is complete when no more of it waits than the connection buffers, not when it has been handed over: what a request holds
  is counted for as long as it is held. No issue is open; tests/test_bounds.py.
- A callback runs when the client disconnects (`banana.on_disconnect`): the call to the upstream is cancelled at once, without
  a task that waits for `http.disconnect` beside each request. No issue is open; tests/http/test_middleware.py.
- A response before the end of the request's body says `Connection: close`, and HTTP/1.0 gets no chunks, which
  https://github.com/Kludex/uvicorn/pull/3103 left open; tests/server/test_cycle.py.

Of the parent (`workers`):

- SIGTERM and SIGINT end whatever is under way. uvicorn sees signals when all workers have been replaced, each after its last
  request, and not while it waits for a worker that hangs. No issue is open; tests/test_stops.py.
- SIGHUP replaces the workers that began before it, however often it comes. uvicorn makes a round for each. No issue is open;
  tests/server/test_workers.py.
- A worker that is killed while it is asked whether it lives is replaced at once, and not when the question is over. No issue
  is open; tests/server/test_workers.py.
"""
