"""The training process: imports torch once, then does one request after another until its parent is gone.

Started as `python -P -m edgeloop.training.training_child FD ENTRY THREADS`: FD is one end of a socket pair to the
parent, ENTRY the module whose functions are called (`prepare`, `train`, `describe`). Nothing here outlives the parent:
when its end of the socket closes, however it died, this process ends at once.
"""

from __future__ import annotations

import importlib
import os
import queue
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import cast

from edgeloop.errors import EdgeloopError, HarnessError, translated
from edgeloop.ports import TrainingProgress
from edgeloop.training.messages import (
    Abandon,
    AbandonedError,
    NumberedCall,
    Progressed,
    Raised,
    Returned,
    TrainingEntry,
)


class _Requests:
    """Requests of the parent, read in a thread of its own so that its end is noticed while torch computes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: queue.SimpleQueue[NumberedCall] = queue.SimpleQueue()
        self._abandoned_numbers: set[int] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> NumberedCall:
        return self._waiting.get()

    def is_abandoned(self, number: int) -> bool:
        return number in self._abandoned_numbers

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, Abandon):
                self._abandoned_numbers.add(message.number)
            else:
                self._waiting.put(message)


def main() -> None:
    os.dup2(2, 1)  # what user code prints goes to the log with everything else
    connection = Connection(int(sys.argv[1]))
    requests = _Requests(connection)
    entry = cast("TrainingEntry", importlib.import_module(sys.argv[2]))
    entry.prepare(int(sys.argv[3]))
    while True:
        request = requests.next()

        def report(what: str, fraction: float, number: int = request.number) -> None:
            if requests.is_abandoned(number):
                raise AbandonedError
            connection.send(Progressed(what, fraction))

        connection.send(_answer(entry, request, report))


def _answer(entry: TrainingEntry, request: NumberedCall, report: TrainingProgress) -> Returned | Raised:
    """The boundary of the process: any failure becomes an answer."""
    try:
        with translated(HarnessError, f"{request.call.subject} failed", next_step="the log has it all"):
            return Returned(request.call.carry_out(entry, report))
    except EdgeloopError as error:
        if isinstance(error, HarnessError) and error.__cause__ is not None:
            traceback.print_exc()
        return Raised(error)


if __name__ == "__main__":
    main()
