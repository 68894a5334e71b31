"""Items over worker processes, each with a time limit. An item that fails, hangs or kills its process is a row, and the
next item runs: in the same process, or in a new one where a GPU's context is lost or the process is."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait

from bench.gpu.process import ended
from bench.gpu.stage import Stage, error_line, settle

Work = Callable[..., None]  # (stage, *item); a function of a module. The stage ends when the item's time is over


def over(stage: Stage, work: Work, items: Sequence[tuple], processes: int, shares: float = 2) -> None:
    """Do `work(stage, *item)` for each of the items, in order, in so many processes. An item may take so many times its
    equal share of the time that is left. Stops where no time is left, and says which items were left out."""
    context = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork
    waiting, idle = list(items), []
    processes = min(processes, len(items))
    busy = [_Worker(context, stage, work) for _ in range(processes)]
    while any(worker.item for worker in busy) or (waiting and busy):
        ready = wait([worker.connection for worker in busy], timeout=max(min(w.until for w in busy) - time.time(), 0))
        for worker in list(busy):
            if worker.connection in ready:
                usable, began = worker.finish(stage), worker.item is not None
            elif worker.until <= time.time():
                usable, began = worker.kill(stage), worker.item is not None
            else:
                continue
            busy.remove(worker)
            if usable:
                idle.append(worker)
            elif began:  # one that cannot even start is not replaced
                busy.append(_Worker(context, stage, work))
        while waiting and idle and stage.left > 1:
            share = stage.left * processes / max(len(waiting), processes)
            busy.append(idle.pop())
            busy[-1].begin(waiting.pop(0), min(shares * share, stage.left - 0.5))
    for worker in (*idle, *busy):
        worker.process.kill()
    if waiting:
        stage.row("left out", items=[list(map(str, item)) for item in waiting], why="no time was left")


class _Worker:
    """A process, and the item that it is at: none while it starts."""

    item: tuple | None = None

    def __init__(self, context: multiprocessing.context.SpawnContext, stage: Stage, work: Work):
        self.until = stage.ends - 0.5
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, stage, work), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, item: tuple, seconds: float) -> None:
        self.item, self.began, self.until = item, time.time(), time.time() + seconds
        self.connection.send((item, self.until))

    def finish(self, stage: Stage) -> bool:
        """Whether the process can take another item."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            self._row(stage, ended(self.process.exitcode or 0))
            return False

    def kill(self, stage: Stage) -> bool:
        self.process.kill()
        if self.item:
            self._row(stage, f"stopped at its limit of {self.until - self.began:.0f} s")
        return False

    def _row(self, stage: Stage, why: str) -> None:
        item = list(map(str, self.item or ("a process that starts",)))
        stage.row("failure", item=item, error=why, process=self.process.pid)


def _serve(connection: Connection, stage: Stage, work: Work) -> None:
    """Do one item after the other, until the connection ends; after a CUDA error the process is of no more use."""
    settle(stage)
    connection.send(True)
    while True:
        try:
            item, until = connection.recv()
        except EOFError:
            return
        usable = True
        try:
            work(replace(stage, ends=until), *item)
        except Exception:  # whatever it is, the next item is to run
            usable = "CUDA" not in error_line()
            stage.failure("failure", item=list(map(str, item)))
        connection.send(usable)
        if not usable:
            return
