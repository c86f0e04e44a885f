"""The parent of the workers: uvicorn's, but for their beginning.

uvicorn starts all of them in the same moment. A start is half a second of a core: of four workers on one core the first
would be ready after two seconds, as the last is.
"""

import os

from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

# A worker that takes longer to be ready is waited for no more by those behind it.
READY_SECONDS = 10


class Workers(Multiprocess):
    """Lets as many workers begin at a time as there are cores for them."""

    def init_processes(self) -> None:
        """Start the workers; those for whom there is no core, when the ones before them are ready."""
        at_once = cores()
        for number in range(self.processes_num):
            # A signal asks to stop, as a rule, and is heeded when all have been started.
            if number and number % at_once == 0 and not self.signal_queue:
                self.processes[-1].wait_until_ready(READY_SECONDS)
            process = Process(self.config, self.sockets)
            process.start()
            self.processes.append(process)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
