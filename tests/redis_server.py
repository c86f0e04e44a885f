"""A Redis of a test's own, which can be stopped, killed, emptied and started again; and a bad road to it."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.services import free_port


class RedisServer:
    """redis-server on a port of its own; with a `folder` it writes its append-only file there, without one nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self.start()

    def start(self) -> None:
        kept = ["--appendonly", "yes", "--dir", str(self._folder)] if self._folder else ["--appendonly", "no"]
        command = [shutil.which("redis-server") or "redis-server", "--port", str(self.port), "--save", "", *kept]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self.answers():
            assert time.monotonic() < deadline
            time.sleep(0.05)

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


class BadRoad:
    """Between a client and a Redis: it can hold up what is on its way, and lose what comes back."""

    def __init__(self, redis: RedisServer) -> None:
        self._redis = redis
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._is_free = threading.Event()
        self._is_free.set()
        self.lost_replies = 0
        self._forwarding: list[tuple[threading.Thread, threading.Event]] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def hold(self) -> None:
        """What is sent from now on arrives when `release` is called, whoever sent it waits or not."""
        self._is_free.clear()

    def stop_holding_new(self) -> None:
        """Connections from now on are not held up; those of before are."""
        self._is_free = threading.Event()
        self._is_free.set()

    def release(self, held: threading.Event) -> None:
        """Let what was held up arrive; return when it has."""
        held.set()
        for thread, is_free in self._forwarding:
            if is_free is held:
                thread.join(20)

    @property
    def held(self) -> threading.Event:
        """What is held up waits for this."""
        return self._is_free

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join(20)

    def _accept(self) -> None:
        with suppress(OSError), self._listener:
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._redis.port))
                forth = threading.Thread(target=self._forth, args=(client, server, self._is_free), daemon=True)
                self._forwarding.append((forth, self._is_free))
                forth.start()
                threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket, is_free: threading.Event) -> None:
        with suppress(OSError), client:
            while data := client.recv(65536):
                is_free.wait(20)
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self.lost_replies:
                    self.lost_replies -= 1
                    break
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        server.close()
