"""Ctrl-C twice: the first ends a run with its table, the second ends the process at once."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def second_at_once() -> Iterator[None]:
    """Leave with 130 at a second interrupt, though a kernel runs that Python would wait for.

    The system writes each signal's number into a pipe as it comes, and a thread reads along.
    """
    if threading.current_thread() is not threading.main_thread() or os.name != "posix":
        yield
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    reader = threading.Thread(target=_read, args=(read,), daemon=True)
    reader.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(write)
        reader.join()
        os.close(read)


def _read(pipe: int) -> None:
    seen = 0
    while number := os.read(pipe, 1):
        seen += number[0] == signal.SIGINT
        if seen == 2:
            if sys.stderr.isatty():
                os.write(2, SHOW_CURSOR)
            os._exit(130)
