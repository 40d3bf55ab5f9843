"""One small hierarchy of errors. Each message says what is wrong, where, and what to do about it."""


class EmbodiedVisionError(Exception):
    """Base of every error this package raises on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class BadInput(EmbodiedVisionError, ValueError):
    """A value, file or option given by the user cannot be used."""

    exit_code = 2


class CheckpointError(BadInput):
    """A policy checkpoint is missing, damaged, or does not fit its encoder or workspace."""


class EncoderError(BadInput):
    """An encoder cannot be found, loaded or applied to the image."""


class EpisodeError(BadInput):
    """An episode is missing, damaged or of an unknown schema."""


class RunFailed(EmbodiedVisionError):
    """A run that was asked for correctly did not succeed."""


class Refused(EmbodiedVisionError):
    """The guard refused a command. Nothing was sent to the arm.

    Attributes:
        rule: name of the violated rule, such as `position_limit`.
        where: joint, axis or pose it concerns.
        value: the offending value.
        limit: the bound that it violates.
    """

    def __init__(self, rule: str, where: str, value: object, limit: object, remedy: str) -> None:
        self.rule = rule
        self.where = where
        self.value = value
        self.limit = limit
        self.remedy = remedy
        super().__init__(f"{rule}: {where} is {value}, limit {limit}; {remedy}")
