"""What Ctrl-C and SIGTERM do to a command: it ends at once, and one line says how to continue.

No exception carries the news: a library could swallow it, or be where none may be raised. Every
writer survives an end at any moment. This imports next to nothing, so that it is there early.
"""

import os
import signal
import sys

STOPPED = "Stopped. The same command continues from what is finished."


def end_at_signals() -> None:
    """Let SIGINT and SIGTERM end this process with a line, exit code 130 or 143.

    A signal that is ignored, as under nohup, stays so.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)


def _end(number: int, _: object) -> None:
    files = sys.modules.get("headscope.files")  # absent while it is still to be imported
    for path in tuple(getattr(files, "TEMPORARY", ())):
        path.unlink(missing_ok=True)
    try:
        cursor = "\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
        os.write(2, f"{cursor}\n{STOPPED}\n".encode())
    finally:  # stderr may be closed
        os._exit(128 + number)
