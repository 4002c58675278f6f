"""Runs the execution engine before a venue: effects go through the last gate, reports into the log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from botplatform.core.crash_points import crash_point
from botplatform.core.engine import PendingEffect, Step, SubmitOrder
from botplatform.core.event_bus import DurableEventBus
from botplatform.core.events import Event, MarketEvent, OrderEvent, TradingState
from botplatform.core.seam import Clock
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.exchanges.exchange import Exchange, SimulatedExchange
from botplatform.runtime.checkpoint import Checkpoints
from botplatform.runtime.exchange_gateway import ExchangeGateway
from botplatform.runtime.gate import GATEWAY
from botplatform.runtime.order_worker import AccountShare, OrderWorker
from botplatform.runtime.reconciler import Reconciler
from botplatform.runtime.simulated_gateway import SimulatedGateway
from botplatform.runtime.trading_state import TradingStateRecord, TradingStateStore

__all__ = ["ExchangeWorker", "ExecutionWorker"]

logger = logging.getLogger(__name__)


class ExecutionWorker(OrderWorker):
    """The worker that stands before a venue in this process.

    The simulated venue is a deterministic part of this worker: its state is in the same checkpoint, and
    catching up shows it the same market and the same orders again, so it comes out where it was.
    """

    def __init__(
        self,
        build: Callable[[], ExecutionEngine],
        bus: DurableEventBus,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        venue: SimulatedExchange,
        trading: TradingStateStore,
        max_decision_age_s: float,
        venue_follows_bus: bool = True,
        account: AccountShare = AccountShare(),  # noqa: B008  # a constant
        checkpoint_every: int = 1000,
    ) -> None:
        """Take the venue; `venue_follows_bus` is False where the source shows it the market first (`settled`)."""
        super().__init__(build, bus, clock, checkpoints, account=account, checkpoint_every=checkpoint_every)
        self.gateway = SimulatedGateway(venue, clock, max_decision_age_s, self._record)
        self._trading = halted_if_unreadable(trading)
        self._venue_follows_bus = venue_follows_bus
        self._reported: set[str] = set()
        self._denied: set[str] = set()

    def sources(self) -> set[str]:
        """Name the sources: the engine, the gateway and the venue's adapter."""
        return {self.name, GATEWAY, self.gateway.source}

    def _extra_publishes(self) -> tuple[str, ...]:
        return ("order.*", "system.*")

    def _note_own_output(self, event: Event) -> None:
        super()._note_own_output(event)
        if event.source == self.gateway.source and isinstance(event.payload, OrderEvent):
            self._reported.add(event.payload.order_id)
        if event.source == GATEWAY and isinstance(event.payload, OrderEvent):
            self._denied.add(event.payload.order_id)

    def _caught_up(self) -> None:
        super()._caught_up()
        self._reported.clear()
        self._denied.clear()

    async def show_market(self, snapshot: MarketEvent) -> bool:
        """Let the venue see the market, and publish what it reports; tell whether that was anything."""
        reports = self.gateway.on_market(snapshot)
        if reports:
            await self._publish(reports)
        return bool(reports)

    async def _carry_out(self, event: Event, step: Step) -> None:
        if self._venue_follows_bus and type(event.payload) is MarketEvent:
            await self.show_market(event.payload)
        await self._carry_out_late(event, step)

    async def _carry_out_late(self, event: Event, step: Step) -> None:
        await self._settle_account(event)
        if step.events:
            await self._publish(step.events)
        for pending in step.effects:
            await self._perform(pending)

    async def _meanwhile(self, event: Event) -> None:
        """Let the venue see the market: it goes on whatever waits here."""
        if self._venue_follows_bus and type(event.payload) is MarketEvent:
            await self.show_market(event.payload)
        await super()._meanwhile(event)

    async def _perform(self, pending: PendingEffect) -> None:
        """Carry out one effect. While catching up, what the venue had before it gets again, ungated.

        What was denied at the gate stays denied, whatever the gate would say now.
        """
        effect = pending.effect
        if type(effect) is SubmitOrder and effect.order.order_id in self._denied:
            return
        had_it = type(effect) is SubmitOrder and effect.order.order_id in self._reported
        trading = None if had_it else await self._trading()
        no_room = None
        if trading is not None and type(effect) is SubmitOrder and self.gateway.refusal(pending, trading) is None:
            no_room = await self._room(effect.order)
        if self.tracing is None or had_it:
            events = self.gateway.perform(pending, trading, no_room)
        else:
            operation = "submit" if type(effect) is SubmitOrder else "cancel"
            with self.tracing.call(operation, self.gateway.source, effect.order, pending.cause) as call:
                events = self.gateway.perform(pending, trading, no_room)
                if any(event.source == GATEWAY for event in events):  # refused at the gate: it was never sent
                    call.drop()
        await self._publish(events)

    def _venue_state(self) -> bytes:
        return self.gateway.venue.snapshot()

    def _restore_venue(self, data: bytes) -> None:
        if data:
            self.gateway.venue.restore(data)


class ExchangeWorker(OrderWorker):
    """The worker that stands before a venue on the network, and never waits for it.

    An effect that the log already has as submitted may have been performed by an earlier process: it is performed
    again only when the venue, asked about it, never had the order, and cannot get it any more because requests are
    valid for `request_validity_s` seconds (by default, and at most, `request_timeout_s`). At the start, and when the
    connection was lost, orders and legs are compared with the venue's.
    """

    def __init__(
        self,
        build: Callable[[], ExecutionEngine],
        bus: DurableEventBus,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        exchange: Exchange,
        trading: TradingStateStore,
        max_decision_age_s: float,
        request_timeout_s: float,
        request_validity_s: float | None = None,
        account: AccountShare = AccountShare(),  # noqa: B008  # a constant
        checkpoint_every: int = 1000,
    ) -> None:
        super().__init__(build, bus, clock, checkpoints, account=account, checkpoint_every=checkpoint_every)
        self.reconciler = Reconciler(
            exchange,
            clock,
            known=lambda: self._known,
            publish=self._publish,
            owns=self.owns,
            timeout_s=request_timeout_s,
            validity_s=request_validity_s,
            tracing=lambda: self.tracing,
        )
        self.gateway = ExchangeGateway(
            exchange,
            clock,
            publish=self._publish,
            trading=halted_if_unreadable(trading),
            lookup=self._record,
            room=self._room,
            reconciler=self.reconciler,
            request_timeout_s=request_timeout_s,
            max_decision_age_s=max_decision_age_s,
            right=lambda: self._right,
            tracing=lambda: self.tracing,
            validity_s=request_validity_s,
        )

    async def stop(self) -> None:
        """Finish the event in hand, save the state, and leave the venue."""
        try:
            await super().stop()
        finally:
            await self.gateway.stop()

    async def abandon(self) -> None:
        """Stop at once, send nothing more, and save nothing: somebody else has the partition."""
        try:
            await self.gateway.abandon()
        finally:
            await super().abandon()

    def sources(self) -> set[str]:
        """Name the sources: the engine, the gateway and the venue's adapter."""
        return {self.name, GATEWAY, self.gateway.source}

    def _extra_publishes(self) -> tuple[str, ...]:
        return ("order.*", "system.*")

    async def _read_own_outputs(self) -> None:
        """Find out which orders are open by what the whole log says, and compare with the venue."""
        await super()._read_own_outputs()
        await self.gateway.start()

    async def _publish(self, events: Sequence[Event]) -> None:
        """Publish, and know it: what is compared with the venue is ahead of what the engine has folded."""
        await super()._publish(events)
        for event in events:
            self._known.apply(event)

    async def _carry_out(self, event: Event, step: Step) -> None:
        """Publish, then hand on the effects that no earlier process can have performed."""
        await self._settle_account(event)
        begun = [each for each in step.effects if type(each.effect) is SubmitOrder and each.cause.id in self._in_log]
        if step.events:
            crash_point("submitted.before")
            await self._publish(step.events)
            crash_point("submitted.after")
        for pending in step.effects:
            if pending not in begun:
                await self.gateway.perform(pending)
                crash_point("handed.after")

    async def _carry_out_late(self, event: Event, step: Step) -> None:
        await self._carry_out(event, step)

    async def _checkpoint(self, *, force: bool = False) -> None:
        """Save the state, but not while a cancel is under way: a later owner asks for it again only from before it."""
        if force or not self.gateway.cancelling:
            await super()._checkpoint(force=force)


def halted_if_unreadable(trading: TradingStateStore) -> Callable[[], Awaitable[TradingStateRecord]]:
    """Return a way to read whether trading is allowed, in which a check that fails counts as halted."""

    async def read() -> TradingStateRecord:
        try:
            return await trading.read()
        except Exception as e:  # whatever goes wrong here must not let an order through
            logger.warning("the trading state cannot be read, which counts as halted", exc_info=e)
            return TradingStateRecord(TradingState.HALTED, f"the trading state cannot be read: {e}", "botplatform")

    return read
