"""The catalogue of errors: each message says what happened, where, and what to do."""

from __future__ import annotations

from typing import ClassVar


class BotPlatformError(Exception):
    """Base of every error that the platform raises on purpose.

    The command line prints the message as one sentence and exits with `exit_code`.
    """

    code: ClassVar[str] = "ERROR"
    exit_code: ClassVar[int] = 1


class InvalidEvent(BotPlatformError, ValueError):
    """An event, or a part of one, is not what the catalogue says."""

    code = "INVALID_EVENT"
    exit_code = 2


class UndeclaredEvent(BotPlatformError):
    """An engine tried to publish a type that it did not declare."""

    code = "UNDECLARED_EVENT"


class SettingsError(BotPlatformError):
    """A setting is unknown, wrong or cannot be read."""

    code = "SETTINGS"
    exit_code = 2


class FeedError(BotPlatformError):
    """Market data cannot be read, or is not what it should be."""

    code = "FEED"
    exit_code = 3


class BusError(BotPlatformError):
    """The bus cannot be reached, or refused something."""

    code = "BUS"
    exit_code = 4


class BusOverflow(BusError):
    """More events wait than the bus may hold."""

    code = "BUS_OVERFLOW"


class PermissionDenied(BusError):
    """The server does not let this user publish or subscribe there."""

    code = "PERMISSION_DENIED"

    def __init__(self, message: str, *, subject: str) -> None:
        super().__init__(message)
        self.subject = subject
        """The subject that was refused."""


class LogFull(BusError):
    """The log has no room left, and these events are not in it."""

    code = "LOG_FULL"

    def __init__(self, message: str, event_ids: frozenset[str]) -> None:
        super().__init__(message)
        self.event_ids = event_ids
        """Ids of the events that it refused; the others that were published with them are in the log."""


class ServerError(BotPlatformError):
    """The embedded NATS server could not be started, or ended."""

    code = "SERVER"
    exit_code = 4


class StreamError(BusError):
    """The stream, a consumer or a bucket is missing, or was set up differently."""

    code = "STREAM"


class ExchangeError(BotPlatformError):
    """A venue refused a call, or the outcome of a call is known to be a failure."""

    code = "EXCHANGE"


class DuplicateOrder(ExchangeError):
    """The venue refused an order because one with the same id is open: the first one stands."""

    code = "DUPLICATE_ORDER"


class RequestExpired(ExchangeError):
    """An order reached the venue after its `valid_until_ns`: it was not taken, and never will be."""

    code = "REQUEST_EXPIRED"


class OutcomeUnknown(ExchangeError):
    """A call to a venue may or may not have had its effect: nobody knows yet."""

    code = "OUTCOME_UNKNOWN"


class StrategyError(BotPlatformError):
    """A strategy cannot be loaded, or failed."""

    code = "STRATEGY"
    exit_code = 2


class SignalError(BotPlatformError):
    """A signal is unknown, or was given wrong parameters."""

    code = "SIGNAL"
    exit_code = 2


class StateError(BotPlatformError):
    """State cannot be restored, or is not what the log says."""

    code = "STATE"


class Fenced(StateError):
    """Somebody else owns what this process was about to change: it must not go on."""

    code = "FENCED"


class LogTrimmed(StateError):
    """The part of the log that is needed was removed, because a newer checkpoint had covered it."""

    code = "LOG_TRIMMED"


class UnknownId(BotPlatformError):
    """No event has the id that was asked for, or ids of several chains begin with it."""

    code = "UNKNOWN_ID"


class StoreError(BotPlatformError):
    """The event store cannot be opened, read or written."""

    code = "STORE"
    exit_code = 5


class StoreBusy(StoreError):
    """Another process holds the event store at the moment: trying again may help."""

    code = "STORE_BUSY"


class StoreAway(StoreBusy):
    """The database of the event store cannot be reached, or cannot write now: what is to be kept waits in the log."""

    code = "STORE_AWAY"


class ProbeFailed(BotPlatformError):
    """A probe did not come through the platform, or its trace cannot be found."""

    code = "PROBE"


class MissingExtra(BotPlatformError):
    """An optional dependency is needed and not installed."""

    code = "MISSING_EXTRA"
    exit_code = 6
