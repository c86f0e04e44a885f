"""The door: what is said before anything is served."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from banana import launcher
from tests.redis_server import RedisServer
from tests.services import ROOT, free_port, needs

pytestmark = pytest.mark.slow


def checked(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """What `main.py --check` says, as the scripts ask it before a start or a restart."""
    environment = os.environ | {"GEMINI_API_KEY": "k", "PORT": "1", "PYTHONPATH": str(ROOT)} | settings
    command: list[str | Path] = [sys.executable, ROOT / "main.py", "--check", "--running"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_budget_that_is_nobodys_is_said_where_somebody_looks(tmp_path: Path) -> None:
    """Whom it was meant for would spend without one; the others are fine."""
    wrong = checked(tmp_path, ACCESS_TOKENS="alice:t,ci:u", BUDGETS="alise=5/day,ci=1/day,*=1/day")
    right = checked(tmp_path, ACCESS_TOKENS="alice:t", BUDGETS="alice=5/day")

    assert (wrong.returncode, right.returncode) == (0, 0)
    assert (
        wrong.stderr
        == "warning: BUDGETS names alise, which is not a name in ACCESS_TOKENS: this budget applies to nobody.\n"
    )
    assert right.stderr == ""


@needs("redis-server")
def test_what_a_store_may_forget_is_said_where_somebody_looks(tmp_path: Path) -> None:
    """A Redis without a file of its own, results that no other machine can read; the setting to change is named."""
    redis, port = RedisServer(), free_port()
    try:
        forgetful = checked(tmp_path, STORE_URL=redis.url)
        shared = checked(tmp_path, STORE_URL=redis.url, RESULTS_URL="/tmp")
    finally:
        redis.kill()
    away = checked(
        tmp_path,
        RESULTS_URL="s3://pictures",
        AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
        AWS_ACCESS_KEY_ID="k",
        AWS_SECRET_ACCESS_KEY="s",
    )

    assert {forgetful.returncode, shared.returncode, away.returncode} == {0}
    assert [line.rpartition("Set ")[2] for line in shared.stderr.splitlines()] == ["appendonly yes."]
    assert "RESULTS_URL is a folder of this machine" in forgetful.stderr.splitlines()[1]
    assert away.stderr.startswith("warning: RESULTS_URL s3://pictures cannot be written to")
    assert len(away.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"STORE_URL": "redis://host:nine"}, "STORE_URL"),
        ({"RESULTS_URL": "ftp://host/x"}, "RESULTS_URL: 'ftp://host/x' is neither a folder nor s3://bucket/prefix"),
        ({"RESULTS_URL": "s3://b/x"}, "RESULTS_URL: 's3://b/x' is neither a folder nor s3://bucket/prefix"),
        ({"RESULTS_URL": "s3://pictures", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "what"}, "RESULTS_URL cannot be used"),
    ],
)
def test_what_can_never_be_used_is_one_line(tmp_path: Path, settings: dict[str, str], line: str) -> None:
    """It names the setting."""
    refused = checked(tmp_path, **settings)

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert line in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_callers_who_come_together_are_accepted_together() -> None:
    """Several in each turn of the loop: under load a turn is long, and the last of a hundred would wait for a hundred."""
    accepted = [0]

    class Caller(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted[-1] += 1
            transport.close()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        listeners = launcher.copies_of(socket.create_server(("127.0.0.1", 0), backlog=100))
        callers = [socket.create_connection(listeners[0].getsockname()) for _ in range(40)]
        servers = [await loop.create_server(Caller, sock=listener) for listener in listeners]
        while sum(accepted) < len(callers):
            accepted.append(0)
            await asyncio.sleep(0)
        for caller in callers:
            caller.close()
        for server in servers:
            server.close()

    uvloop.run(asyncio.wait_for(serve(), 30))

    assert max(accepted) == launcher.ACCEPTED_AT_ONCE
