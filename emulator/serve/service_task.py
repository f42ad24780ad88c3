"""Serves one guest at a socket from its attaching to its leaving, and records it."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from devices.vhost_user.socket_file import SocketFile
from devices.vhost_user.transport import (
    Attached,
    Detached,
    Event,
    QueueStarted,
    QueueStopped,
    Server,
    TurnedAway,
)
from emulator.config.units import write_size
from emulator.observer import Observer
from emulator.serve.pace import Pace
from emulator.serve.record import Record

FEATURES_DEFAULT: Final = ("must_tell_host", "stats_vq", "deflate_on_oom", "page_reporting")


class Service:
    """Serves one guest.

    pace:        how often a row of the series is taken
    attached:    set once a guest has attached
    left:        set once it has left
    say_target:  told of the balloon's target; None: the observer, as the phase that goes on
    details:     told, before each sample, of what a row does not say
    """

    def __init__(
        self,
        record: Record,
        observer: Observer,
        *,
        pace: Pace,
        any_user: bool = False,
        say_target: Callable[[str], None] | None = None,
        details: Callable[[Sequence[str]], None] = lambda lines: None,
    ) -> None:
        self.record: Final = record
        self.attached: Final = trio.Event()
        self.left: Final = trio.Event()
        self.reason: str | None = None  # Why we hung up; None: the guest left by itself.
        self._observer = observer
        self._details = details
        self._pace = pace
        self._stirred = trio.Event()
        self._say_target = observer.phase if say_target is None else say_target
        self._server = Server(record.balloon, observe=self._observe, any_user=any_user)
        record.balloon.config.changed = self._tell_change

    async def run(self, socket_file: SocketFile) -> None:
        """Until a guest has come and gone; the series has its last row then.

        The socket is closed once the guest has come: nobody else is to be served.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sample_for_ever)
            await self._server.serve(socket_file, guests_max=1)
            await self.left.wait()
            nursery.cancel_scope.cancel()

    def set_target(self, target_bytes: int | None) -> None:
        """Leave the guest with so much memory; None: with all."""
        self.record.balloon.set_target(target_bytes)
        said = "all of its memory" if target_bytes is None else write_size(target_bytes)
        self._say_target(f"the guest may have {said}")
        self._stirred.set()
        self.record.stir()

    async def _sample_for_ever(self) -> None:
        await self.attached.wait()
        while True:
            with trio.move_on_after(self._pace.pause_s):
                await self._stirred.wait()
                self._stirred = trio.Event()
                self._pace.expect_news()
            if self.record.balloon.balloon is not None:
                row = self.record.sample()
                if self._pace.looked(msgspec.structs.replace(row, time_s=0)):
                    self.record.stir()
                self._details(self.record.details())
                self._observer.sample(row)

    def _tell_change(self) -> None:
        if self._server.backend is not None:
            self._server.backend.notify_config_changed()

    def _observe(self, event: Event) -> None:
        say = self._observer.event
        match event:
            case Attached(peer):
                self.record.begin()
                self.attached.set()
                say(f"a guest has attached: process {peer.pid} of user {peer.uid}")
                self.set_target(self.record.balloon.target_bytes)
            case Detached(peer, reason):
                self.reason = reason
                self.left.set()
                if self.record.ranges_left_out:
                    say(f"{self.record.ranges_left_out} ranges were left out of reports.csv")
                say("the guest has left" if reason is None else f"hung up on the guest: {reason}")
            case TurnedAway(peer, reason):
                say(f"process {peer.pid} was turned away: {reason}")
            case QueueStopped(index, str(reason)):
                say(f"queue {index} broke: {reason}")
            case QueueStarted() | QueueStopped():
                pass
