"""Run an iterator in a thread of its own, a few items ahead."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar, cast

T = TypeVar("T")
_END = object()


@contextlib.contextmanager
def prefetch(source: Generator[T, None, None], *, ahead: int = 3) -> Iterator[Iterator[T]]:
    """Yield an iterator over `source`, which runs in a thread, at most `ahead` items in advance.

    An exception of the source is raised where its item would have come. Leaving the block early closes
    the source and waits for the thread.
    """
    items: queue.Queue[object] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                items.put(item, timeout=0.1)
                return

    def produce() -> None:
        try:
            with contextlib.closing(source):
                for item in source:
                    put(item)
                    if stopped.is_set():
                        return
            put(_END)
        except BaseException as error:  # handed over, not swallowed: the consumer raises it
            put(error)

    def consume() -> Iterator[T]:
        while True:
            item = items.get()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield cast(T, item)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        stopped.set()
        thread.join()
