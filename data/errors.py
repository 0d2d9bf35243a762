"""Errors that are written for the user."""


class PictuneError(Exception):
    """Bad input: the message says where, what, and what to do.

    `pipelines/cli.py` prints it as one line and exits with status 2.
    """


class ProcessLost(PictuneError):
    """Another process that shares the work has ended; its own output or the launcher's says why."""
