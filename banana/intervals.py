"""How long this service waits and how often it looks, where that is no setting and tests hand in something shorter."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Intervals:
    """All in seconds.

    Attributes:
        silence: of a stream without an image, before it says that it goes on.
        beat, lease: between two signs of life of a worker, and after how long without one it has died. A lease is longer than
            two transactions wait for the disk one after the other; what a worker settles later is believed all the same.
        ledger_answer: after this a call of the ledger is given up, and what must be recorded first is not begun. It may be
            carried out later all the same.
        ledger_lock: the longest wait for another process's transaction in the ledger.
        file_look: between two looks whether the file of a name is still the one that is open.
        retry: before what could not be recorded or stored is tried again.
        task_look, sweep: between two looks for tasks that were left behind, and for what has expired.
        budget_look: between two looks for amounts that are to be recorded or settled.
        signatures: of looking for the signatures of a conversation's images, together.

    """

    silence: float = 15
    beat: float = 1
    lease: float = 8
    ledger_answer: float = 2.5
    ledger_lock: float = 2
    file_look: float = 1
    retry: float = 1
    task_look: float = 1
    sweep: float = 5
    budget_look: float = 1
    signatures: float = 10


INTERVALS = Intervals()
