"""A bad road to a server: what is on it comes late, or never."""

import socket
import threading
from contextlib import suppress


class BadRoad:
    """Between a client and the server at a port: it can hold up what is on its way, and lose what comes back."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._is_free = threading.Event()
        self._is_free.set()
        self.lost_replies = 0
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        self._forwarding: list[tuple[threading.Thread, threading.Event]] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def cut(self) -> None:
        """Nothing gets through any more."""
        self._is_cut = True
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._is_cut = False

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
                if self._is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
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
