"""Errors that end a command: one line for the reader, one exit code for the caller."""

from __future__ import annotations


class Failure(Exception):
    """Something the user can act on. The message is one line: what was wrong, and what to do."""

    exit_code = 1


class BadInput(Failure):
    """An option, a run folder or a recording that cannot be used."""

    exit_code = 2


class DataUnavailable(Failure):
    """A data set could not be had, or is not the data set it should be."""

    exit_code = 3


class TrainingFailed(Failure):
    """The loss is no longer a finite number."""

    exit_code = 4


class VerificationFailed(Failure):
    """A comparison of the ports with their originals does not hold."""

    exit_code = 5


class Interrupted(Failure):
    """The user, or the system, asked the command to stop; a training that had begun is saved."""

    exit_code = 130
