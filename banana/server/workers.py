"""The parent of the workers: uvicorn's, but for their replacement and their end; why stands in the package's docstring."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

# How often signals and workers are checked, in seconds.
LOOK_SECONDS = 0.1

log = structlog.get_logger(__name__)


class Workers(Multiprocess):
    """Starts, replaces and ends the workers.

    Args:
        config, sockets: as uvicorn has them.
        stopping: a value that the workers share, 0 until the service is to end. It has no lock, which a signal or a worker
            that is killed could leave taken.
        given_up: is told why the workers are not replaced any further.

    """

    def __init__(
        self, config: uvicorn.Config, sockets: list[Any], stopping: Any, given_up: Callable[[str], object]
    ) -> None:
        super().__init__(config, sockets)
        self._given_up = given_up
        self._stopping = stopping
        # When the last SIGHUP came, and when each worker began, in seconds of the monotonic clock.
        self._replace_before = float("-inf")
        self._began: dict[Process, float] = {}
        self._retiring: list[Process] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, self.replace)

    @property
    def is_stopping(self) -> bool:
        """Whether a signal has asked to stop."""
        return self.should_exit.is_set() or bool({signal.SIGTERM, signal.SIGINT} & set(self.signal_queue))

    def handle_signals(self) -> None:
        """Do what signals ask for."""
        super().handle_signals()
        while not self.is_stopping and (old := self._next_to_replace()) is not None:
            if not self._replaced(old):
                self._replace_before = float("-inf")
                return

    def keep_subprocess_alive(self) -> None:
        """Replace the workers that have died, and those that do not answer any more."""
        for number, process in enumerate(self.processes):
            if self._answers(process) or self.is_stopping:
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:
                log.error("worker_failed_to_start", worker=process.pid)
                self.should_exit.set()
                return
            log.warning("worker_died", worker=process.pid)
            self.processes[number] = self._started()

    def terminate_all(self) -> None:
        """Ask all workers to end; from now on nobody listens but those that have not heard it yet."""
        self._stopping.value = 1
        for listener in self.sockets:
            listener.close()
        super().terminate_all()

    def handle_ttin(self) -> None:
        """Start one more worker."""
        self.processes_num += 1
        self.processes.append(self._started())

    def handle_ttou(self) -> None:
        """Let one worker end, the last one never; nobody waits for it."""
        if self.processes_num > 1:
            self.processes_num -= 1
            self._retiring.append(self.processes.pop())
            self._retiring[-1].terminate()

    def join_all(self) -> None:
        """Return when all workers have ended."""
        super().join_all()
        for process in self._retiring:
            process.join()

    def stop(self, number: int, _: object) -> None:
        """Take a signal that asks to stop."""
        self._stopping.value = 1  # from now on no task is begun
        self.signal_queue.append(number)

    def replace(self, _: int, __: object) -> None:
        """Take a signal that asks for new workers."""
        self._replace_before = time.monotonic()

    def _started(self) -> Process:
        process = Process(self.config, self.sockets)
        self._began[process] = time.monotonic()
        process.start()
        return process

    def _next_to_replace(self) -> Process | None:
        """Return a worker that began before the last SIGHUP."""
        self._began = {process: self._began.get(process, float("-inf")) for process in self.processes}
        return next((process for process in self.processes if self._began[process] < self._replace_before), None)

    def _replaced(self, old: Process) -> bool:
        """Let a new worker take the place of `old`, which ends when it has answered; return whether that is so."""
        new = self._started()
        if not self._wait_until_ready(new, self.config.timeout_worker_healthcheck):
            new.kill()
            new.join()
            if not self.is_stopping:
                log.error("worker_not_ready", worker=new.pid, message="The restart is given up; the others serve on.")
                self._given_up(_why_not_ready())
            return False
        self.processes[self.processes.index(old)] = new
        self._retiring.append(old)
        old.terminate()
        while old.process.is_alive() and not self.is_stopping:
            old.process.join(LOOK_SECONDS)
            self.keep_subprocess_alive()
        self._retiring = [process for process in self._retiring if process.process.is_alive()]
        return True

    def _wait_until_ready(self, process: Process, seconds: float) -> bool:
        """Return whether a worker serves within so much time; at once when it has died or a signal asks to stop."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and process.process.is_alive() and not self.is_stopping:
            if self._asked(process, deadline):
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _answers(self, process: Process) -> bool:
        """Return whether a worker answers in time; once the service is stopping, every worker counts as answering."""
        deadline = time.monotonic() + self.config.timeout_worker_healthcheck
        return self._asked(process, deadline) is not None or self.is_stopping

    def _asked(self, process: Process, deadline: float) -> bool | None:
        """Ask a worker whether it serves; return None when it does not answer."""
        try:
            process.parent_conn.send(b"ping")
            while process.process.is_alive() and time.monotonic() < deadline and not self.is_stopping:
                if process.parent_conn.poll(LOOK_SECONDS):
                    is_serving: bool = process.parent_conn.recv()
                    return is_serving
            return None
        except (OSError, EOFError):
            return None


def _why_not_ready() -> str:
    """Return why a new worker did not serve, and what to do."""
    if not Path(sys.executable).exists():
        return f"its folder was moved: {sys.executable} is not there any more. Type ./stop.sh, then ./start.sh"
    return "a new worker did not start; the service keeps running with the old ones. See why: ./logs.sh"
