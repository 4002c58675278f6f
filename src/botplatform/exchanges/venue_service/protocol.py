"""What travels between the paper venue and its clients: JSON over NATS, one verb per subject.

Requests go to `venue.<name>.<account>.<verb>`, reports come on `venue.<name>.<account>.reports.<symbol>`. A report
may be lost on its way; its sequence shows that, and `reports_since` gives it again.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

import msgspec
from msgspec import Raw, Struct

from botplatform.core.events import PositionSide
from botplatform.errors import DuplicateOrder, ExchangeError, InvalidEvent, RequestExpired
from botplatform.events.rules import as_token
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest

__all__ = [
    "Ask",
    "Audit",
    "AuditAsk",
    "Balance",
    "Code",
    "ListAsk",
    "Numbered",
    "OrderAsk",
    "PositionRow",
    "Refusal",
    "Reply",
    "Reports",
    "ReportsAsk",
    "Status",
    "Subjects",
    "Verb",
    "check_request",
    "decode",
    "encode",
    "refused",
]

PAGE: Final = 200
"""Reports in one answer at most: far below the smallest message size of a server."""
MAX_DIGITS: Final = 40
_CLIENT_ORDER_ID: Final = re.compile(r"[A-Za-z0-9.:/_-]{1,36}")
_Body = TypeVar("_Body")


class Verb(StrEnum):
    """What a client can ask for."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    ORDER = "order"
    FILLS = "fills"
    OPEN_ORDERS = "open_orders"
    REPORTS_SINCE = "reports_since"
    POSITIONS = "positions"
    BALANCES = "balances"
    STATUS = "status"
    AUDIT = "audit"


class Code(StrEnum):
    """Why the venue refused. Nothing happened in any of these cases."""

    DUPLICATE_ORDER = "DUPLICATE_ORDER"
    """An order with this id is open."""
    EXPIRED = "EXPIRED"
    """The request arrived after its `valid_until_ns`, by the venue's clock."""
    UNKNOWN_SYMBOL = "UNKNOWN_SYMBOL"
    """The venue does not trade the symbol."""
    BAD_REQUEST = "BAD_REQUEST"
    """The request cannot be read, or has a value that no venue takes."""


_ERRORS: Final[dict[Code, type[ExchangeError]]] = {
    Code.DUPLICATE_ORDER: DuplicateOrder,
    Code.EXPIRED: RequestExpired,
}


class Subjects:
    """The subjects of one account at one venue; what a token cannot have becomes `_`."""

    def __init__(self, name: str, account_id: str) -> None:
        self.prefix = f"venue.{as_token(name)}.{as_token(account_id)}"
        self.requests = f"{self.prefix}.*"
        """Every request."""
        self.reports = f"{self.prefix}.reports.*"
        """Every report."""

    def request(self, verb: Verb) -> str:
        """Return the subject of a verb."""
        return f"{self.prefix}.{verb.value}"

    def report(self, symbol: str) -> str:
        """Return the subject that reports about a symbol come on."""
        return f"{self.prefix}.reports.{as_token(symbol)}"


class Ask(Struct, frozen=True, omit_defaults=True):
    """A request: its id, which faults are drawn by, and the body of its verb."""

    request_id: str
    body: Raw
    traceparent: str = ""
    """The span of the call, as W3C writes it, where that is traced; what is none is ignored."""


class OrderAsk(Struct, frozen=True):
    """Body of `cancel`, `order` and `fills`."""

    client_order_id: str
    symbol: str


class ListAsk(Struct, frozen=True, omit_defaults=True):
    """Body of `open_orders`: a page, of one symbol or of all."""

    symbol: str | None = None
    offset: int = 0


class ReportsAsk(Struct, frozen=True):
    """Body of `reports_since`: a page of what came after a sequence."""

    after: int


class AuditAsk(Struct, frozen=True, omit_defaults=True):
    """Body of `audit`: about one id, or about all."""

    client_order_id: str = ""


class Refusal(Struct, frozen=True):
    """A refusal that the venue states."""

    code: Code
    text: str


class Reply(Struct, frozen=True, omit_defaults=True):
    """An answer: a refusal, or the body of the verb's answer."""

    refusal: Refusal | None = None
    body: Raw = Raw(b"null")


class Numbered(Struct, frozen=True):
    """A report with its place among all reports of the account: from 1, without holes."""

    sequence: int
    report: ExchangeReport


class Reports(Struct, frozen=True):
    """Answer to `reports_since`: the next ones, and the newest sequence there is."""

    book_id: str
    last: int
    reports: list[Numbered]


class PositionRow(Struct, frozen=True):
    """One leg that is not flat."""

    symbol: str
    side: PositionSide
    quantity: Decimal


class Balance(Struct, frozen=True):
    """What the account has in one currency: its cash with all fees paid, and the fees alone."""

    currency: str
    cash: Decimal
    commission: Decimal


class Status(Struct, frozen=True):
    """Answer to `status`."""

    name: str
    account_id: str
    book_id: str
    """Made with the book; another one means another book."""
    sequence: int
    """Of the newest report."""
    now_ns: int
    """The venue's clock."""
    market_ns: dict[str, int]
    """The time of the market, by symbol."""


class Audit(Struct, frozen=True):
    """Answer to `audit`: what the venue ever took."""

    orders: int
    """Orders that it ever made, of one id where that was asked for."""
    ids: int
    """Different client order ids."""
    repeated: dict[str, int]
    """Ids that came more than once, with how often; the first thousand."""


def encode(body: object) -> bytes:
    """Write a message."""
    return msgspec.json.encode(body)


def decode(data: bytes | Raw, kind: type[_Body]) -> _Body:
    """Read a message; raise `InvalidEvent` for anything else. Input from the network is not trusted."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise InvalidEvent(f"a message is not a {getattr(kind, '__name__', kind)}: {e}") from e


def check_request(request: OrderRequest) -> None:
    """Raise `InvalidEvent` for an order that cannot even be looked at."""
    if _CLIENT_ORDER_ID.fullmatch(request.client_order_id) is None:
        raise InvalidEvent("the client_order_id has to be 1 to 36 characters of A-Z a-z 0-9 . : / _ -")
    if not _sane(request.quantity):
        raise InvalidEvent("the quantity has to be an ordinary number")
    if request.price is not None and not _sane(request.price):
        raise InvalidEvent("the price has to be an ordinary number")


def _sane(value: Decimal) -> bool:
    return value.is_finite() and len(value.as_tuple().digits) <= MAX_DIGITS and abs(value.adjusted()) <= MAX_DIGITS


def refused(refusal: Refusal, venue: str) -> ExchangeError:
    """Return the error that a refusal means to the client."""
    kind = _ERRORS.get(refusal.code, ExchangeError)
    return kind(f"{venue} refused with {refusal.code.value}: {refusal.text}")
