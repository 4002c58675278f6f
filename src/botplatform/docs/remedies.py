"""The page of what to do when an engine reports an error: every code of an event, and every error that ends a process."""

from __future__ import annotations

from typing import Final

from botplatform import errors
from botplatform.docs.alerts_page import alerts_section
from botplatform.docs.docstrings import docstring, one_line
from botplatform.docs.tables import page, table

__all__ = ["ENDINGS", "REPORTS", "remedies_page"]

REPORTS: Final = {
    "ENGINE_FAILED": (
        "error",
        "An engine raised on an event and went on without it.",
        "`botplatform dlq show ID` shows event and traceback. Correct the code, then `botplatform dlq requeue ID`, or `botplatform dlq discard ID`.",
    ),
    "QUARANTINED": (
        "error",
        "Execution, portfolio or strategy raised on an event of a symbol: its events wait, and its orders are denied.",
        (
            "As above, and soon: positions of the symbol are not looked after until then. Its working orders stay at the "
            "venue; cancel them there if that is too dangerous."
        ),
    ),
    "QUARANTINE_LIFTED": ("recovery", "A person decided, and the symbol trades again.", "Nothing."),
    "ENGINE_STALE": (
        "warning",
        "An engine gave no sign of life for `monitoring.stale_after_s`.",
        "`kubectl get pods`: does it run, is it ready, was it killed for its memory? Its log says why it ended.",
    ),
    "ENGINE_RECOVERED": ("recovery", "It gives signs of life again.", "Nothing; look for what happened if it recurs."),
    "CONFLATED": (
        "warning",
        "The signals engine was behind and left out ticks that newer ones had overtaken.",
        "More replicas of signals, fewer symbols, or cheaper signals. It happens only with `bus.conflate_waiting`.",
    ),
    "HANDLER_FAILED": (
        "error",
        "A subscriber raised; the others got the event.",
        "Correct the subscriber; its module and the exception are in the message.",
    ),
    "FEED_STALE": (
        "warning",
        "A symbol had no snapshot for `feed.stale_after_s`.",
        "Is the feed's source up, and is the symbol still listed there? Orders of the symbol go by the last price seen.",
    ),
    "FEED_GAP": (
        "warning",
        "A recording or feed jumped in time.",
        "Complete the recording; live, look for lost connections.",
    ),
    "FEED_TIME_BACKWARDS": (
        "warning",
        "A snapshot was older than the one before; it was dropped.",
        "Rare ones are harmless. Many: two feeds write the same symbol, or the source's clock jumps.",
    ),
    "SIGNAL_FAILED": (
        "error",
        "A signal raised, or returned what is no finite number; it is switched off for that symbol.",
        "Correct the signal and restart the signals engine. Strategies see the value as absent until then.",
    ),
    "TOO_MANY_SYMBOLS": (
        "error",
        "More symbols have market data than one log is for; further ones get no signals.",
        "Split the symbols between several installs.",
    ),
    "STRATEGY": (
        "error",
        "A strategy raised, or returned nonsense: it is stopped for that symbol, its orders and legs stay.",
        "Correct it and roll the strategy engine, then `botplatform resume`, which starts it again.",
    ),
    "UNANSWERED": (
        "warning",
        "Execution did not answer a decision in three times `execution.max_decision_age_s`.",
        "Is execution ready, and does its lag fall? The action no longer counts; a late answer is denied as stale.",
    ),
    "NOT_RECONCILED": (
        "error",
        "Execution cannot compare its orders with the venue's, and sends nothing until it can.",
        "Is the venue reachable, are the keys right? It tries again by itself.",
    ),
    "FOREIGN_ORDER": (
        "warning",
        "The venue has a working order that is none of ours.",
        "Who else trades on this account? Cancel it there if nobody.",
    ),
    "FORGOTTEN_ORDER": (
        "warning",
        "The venue states that it never had an order which has executions in the log.",
        "Was its book reset (a paper venue whose volume is new), or is this another account? Halt until it is clear.",
    ),
    "STILL_OPEN": (
        "error",
        "An order that is finished by the log works at the venue.",
        "Cancel it at the venue.",
    ),
    "POSITION_DRIFT": (
        "error",
        "The venue holds another quantity than the log, and no order of ours explains it.",
        (
            "Halt; compare the venue's list of executions with `botplatform events tail --from-start 'order.*'`; settle the "
            "difference at the venue."
        ),
    ),
    "FOREIGN_FILL": (
        "error",
        "A fill was counted whose order this log never had.",
        "Find out who trades on the account, then reconcile with the venue.",
    ),
    "CONFLICTING_FILL": (
        "warning",
        "An execution came again with other numbers; the first ones are kept.",
        "Compare with the venue's list of executions; report it to whoever writes the adapter.",
    ),
    "OVERFILL": (
        "error",
        "An execution would fill more than was asked for; it is not counted.",
        "Compare with the venue's list of executions: the position there may be larger than here. Settle it there.",
    ),
    "INVALID_FILL": (
        "warning",
        "A fill has no trade id, quantity or price; it is not counted.",
        "Correct the adapter.",
    ),
    "STALE_REPORT": ("warning", "A report is behind what is known; it is recorded only.", "Nothing."),
    "UNKNOWN_ORDER": (
        "warning",
        "A report, or a request to cancel, of an order that is not ours.",
        "Once, after a new log on an old account: nothing. Again and again: somebody else trades there.",
    ),
    "ILLEGAL_TRANSITION": (
        "warning",
        "A report says what cannot follow from what is known.",
        "Compare the order with the venue's, by `botplatform trace` of its id.",
    ),
    "EXCESS_CLOSE": (
        "error",
        "A fill closed more than the leg held; the leg is flat, the rest was not counted.",
        "Compare the position with the venue's, and settle the difference there.",
    ),
    "REPORT_REFUSED": (
        "error",
        "A report of the venue makes no sense; the venue is asked about the order instead.",
        "If it recurs, report it to whoever writes the adapter, with the message.",
    ),
    "CANCEL_FAILED": (
        "warning",
        "A cancel did not go through, so the order works on.",
        "Cancel it at the venue if it must go; the strategy may ask again.",
    ),
    "ALERT_NOT_SENT": (
        "error",
        "An alert did not reach a channel.",
        "Check the channel's address (a secret setting), the service behind it, and `networkPolicy.internetFor`.",
    ),
}
"""The codes of `system.*` events: how bad, what happened, what to do."""

ENDINGS: Final = {
    "ERROR": "Read the sentence; it says what, where and what to do.",
    "INVALID_EVENT": "Correct the event that was written by hand, or the code that made it.",
    "UNDECLARED_EVENT": "Add the type to what the engine declares, and give its NATS user the new permissions.",
    "SETTINGS": "The sentence names the file, line or variable. `botplatform config check` repeats it. Correct the "
    "values and upgrade; the pods with the old settings run on until then.",
    "FEED": "Is the recording mounted where `feed.path` says, and in one of the formats?",
    "BUS": "Is NATS ready (`kubectl get pods`), and `nats.external.url` right? Pods wait, then start again by themselves.",
    "BUS_OVERFLOW": "A subscriber in this process is too slow; what it missed is in the log.",
    "PERMISSION_DENIED": "Give the user what `botplatform permissions --engine …` prints; with the built-in NATS, upgrade the "
    "chart together with the image. The sentence names the subject.",
    "LOG_FULL": "Raise `config.bus.max_bytes`, `nats.maxFileStore` and the volume, or lower `config.bus.tick_ttl_s`; is the "
    "janitor running? Orders still went through: ticks pause at 90 %.",
    "SERVER": "Only with --embedded: the server's own words follow.",
    "STREAM": "Run the setup Job again (`helm upgrade` does): a stream, consumer or bucket is missing. Where the number of "
    "partitions differs, set it back: it is fixed.",
    "EXCHANGE": "The venue's own words are in the sentence: keys, permissions of the account, limits.",
    "DUPLICATE_ORDER": "Nothing: the first one stands, and this is how it is told from a new one.",
    "REQUEST_EXPIRED": "Is the clock of the node right, or the way to the venue slow? The order was not taken.",
    "OUTCOME_UNKNOWN": "Nothing at once: the venue is asked until it says. Its exposure stays reserved.",
    "STRATEGY": "Is the strategy's package in the image, its name right, and do the signal sets compute what it needs?",
    "SIGNAL": "Is the kind registered, and are its parameters what it takes?",
    "STATE": "Another version, or other settings, wrote the log: `helm rollback`, let it become ready, and change again; a pod "
    "that ends in order leaves nothing behind that the next one would compute otherwise. Where a checkpoint cannot be "
    "read, purge its key as the user setup (`nats stream purge KV_checkpoints --subject '$KV.checkpoints.signals-3'`): "
    "the state is rebuilt from the log, as long as that was never trimmed; else put the key back from a backup.",
    "FENCED": "Nothing: another replica owns the partition, and this one began again. Often: the node lacks CPU, and "
    "`botplatform_lapses_total` grows (docs/operations.md, `Too little processor`).",
    "LOG_TRIMMED": "Put the checkpoint that the sentence names back from a backup (docs/operations.md, `Back up and "
    "restore`). Without one: halt, be flat, and let it begin empty with `botplatform setup --begin-empty NAME`, as the user setup.",
    "UNKNOWN_ID": "More of the id, or another one of the chain; old ticks are in neither log nor store any more.",
    "STORE": "Is the volume full or read-only? Enlarge it, and set `config.storage.max_bytes` below it; `config.storage.keep_s` limits orders too.",
    "STORE_BUSY": "Two processes have the same file: storage runs one replica.",
    "STORE_AWAY": "Nothing is lost: it waits in the log, and is stored when the database answers. The sentence says why it "
    "does not: is it up, its disk full, its password changed, the way open (`database.port` and `database.to`)?",
    "PROBE": "The sentence names what did not answer: `kubectl get pods`, then its log.",
    "MISSING_EXTRA": "Build the image with the extra that the sentence names.",
}
"""The codes of errors that end a process: what to do."""


def remedies_page() -> str:
    """Return the page."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BotPlatformError)
    ]
    about = (
        "Engines say what is wrong as events, which monitoring shows and notifications turn into alerts, and in their "
        "log. A process that cannot go on ends with one sentence and an exit code, and Kubernetes starts it again. "
        "Commands are given as `botplatform …`; on a cluster run them as [operations](operations.md) says. Why an order "
        "was denied or rejected is in [reasons](reasons.md)."
    )
    reports = [(f"`{code}`", f"`system.{kind}`", what, do) for code, (kind, what, do) in REPORTS.items()]
    endings = [
        (
            f"`{kind.code}`",
            str(kind.exit_code),
            one_line(docstring(kind).split("\n\n", 1)[0]),
            ENDINGS.get(kind.code, ""),
        )
        for kind in kinds
    ]
    parts = [
        about,
        "## What an engine reports",
        "The code is in the event's payload and in the log record: `botplatform events tail 'system.*'`.",
        table(("Code", "Event", "What happened", "What to do"), reports),
        "## What ends a process",
        "The sentence is the last line of its log: `kubectl logs --previous POD | tail -1`.",
        table(("Code", "Exit code", "What it means", "What to do"), endings),
        *alerts_section(),
    ]
    return page("When something is wrong", parts)
