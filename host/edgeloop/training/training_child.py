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
from typing import Any

from edgeloop.errors import EdgeloopError, HarnessError
from edgeloop.ports import TrainingJob
from edgeloop.training.messages import Abandon, AbandonedError, Progressed, Raised, Request, Returned


class _Requests:
    """What the parent asks for, read in a thread of its own so that its end is noticed while torch computes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._abandoned: set[int] = set()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> Request:
        return self._waiting.get()

    def is_abandoned(self, number: int) -> bool:
        return number in self._abandoned

    def _listen(self) -> None:
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(0)
            if isinstance(message, Abandon):
                self._abandoned.add(message.number)
            else:
                self._waiting.put(message)


def main() -> None:
    os.dup2(2, 1)  # what user code prints goes to the log with everything else
    connection = Connection(int(sys.argv[1]))
    requests = _Requests(connection)
    entry = importlib.import_module(sys.argv[2])
    entry.prepare(int(sys.argv[3]))
    while True:
        request = requests.next()

        def report(what: str, fraction: float, number: int = request.number) -> None:
            if requests.is_abandoned(number):
                raise AbandonedError
            connection.send(Progressed(what, fraction))

        connection.send(_answer(entry, request, report))


def _answer(entry: Any, request: Request, report: Any) -> Returned | Raised:
    reporting = (report,) if request.function == "train" else ()
    try:
        return Returned(getattr(entry, request.function)(*request.arguments, *reporting))
    except EdgeloopError as error:
        return Raised(error)
    except Exception as error:  # noqa: BLE001 -- the boundary of the process: whatever went wrong becomes an answer
        traceback.print_exc()
        subject = request.arguments[0]
        about = f"training {subject.lightening}" if isinstance(subject, TrainingJob) else "looking at a network"
        line = (str(error).strip().splitlines() or [""])[0]
        return Raised(HarnessError(f"{about} failed: {type(error).__name__}: {line}", next_step="the log has it all"))


if __name__ == "__main__":
    main()
