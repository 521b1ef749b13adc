"""A bot that is connected, reads its settings from a file, and reads them again on SIGHUP."""

import signal
import socket
import sys

chat, settings = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
connection.connect(chat)


def tell(*_):
    with open(settings, "rb") as file:
        connection.sendall(file.read() + b"\n")


signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
tell()
while True:
    signal.sigwait([signal.SIGHUP])
    tell()
