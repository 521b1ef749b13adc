"""Runs a program in a terminal of its own and types when it is there.

typist.py TEXT KEYS COMMAND...   waits until TEXT is on the screen, types KEYS, waits for the end
"""

import os
import pty
import sys

text, keys, command = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3:]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(command[0], command)
screen, typed = b"", False
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:  # EIO: the program has ended
        break
    if not piece:
        break
    screen += piece
    if text in screen and not typed:
        typed = True
        while keys:
            keys = keys[os.write(terminal, keys) :]
_, status = os.waitpid(pid, 0)
if not typed:
    sys.exit(f"{text!r} never came: {screen!r}")
sys.exit(os.waitstatus_to_exitcode(status))
