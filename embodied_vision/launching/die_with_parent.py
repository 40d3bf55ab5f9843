"""Replaces itself by a command that the kernel kills when the parent ends, even by kill -9.

Run as a script without site packages, so that it costs a few milliseconds:
`python -I -S die_with_parent.py PARENT_PID COMMAND…`. A pre-exec hook in the parent would run
between fork and exec of a process with threads, which can deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Bind the own life to the parent's, then become the command."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent ended before its child started")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell ignores it for what it starts in the background
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
