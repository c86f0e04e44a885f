"""A Redis of a test's own, which can be stopped, killed, emptied and started again."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.patience import until
from tests.services import free_port


class RedisServer:
    """redis-server on a port of its own; with a `folder` it writes its append-only file there, without one nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self.start()

    def start(self) -> None:
        # As in docker-compose.yml: else what was confirmed may still be on its way to the file, and a kill loses it.
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(self._folder)] if self._folder else []
        command = [shutil.which("redis-server") or "redis-server", "--port", str(self.port), "--save", "", *kept]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        with suppress(RedisError), Redis(port=self.port, socket_timeout=5) as client:
            return bool(client.ping())
        return False

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def empty(self) -> None:
        with Redis(port=self.port) as client:
            client.flushall()

    def keys(self) -> set[str]:
        """The kinds of keys there are: what stands between the prefix and the next colon."""
        with Redis(port=self.port) as client:
            return {key.decode().split(":")[1] for key in client.scan_iter()}

    def configure(self, name: str, value: str) -> None:
        with Redis(port=self.port) as client:
            client.config_set(name, value)

    def close_connections(self) -> None:
        """As a balancer does with idle ones, or a restart with all."""
        with Redis(port=self.port) as client:
            client.client_kill_filter(_type="normal", skipme=True)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
