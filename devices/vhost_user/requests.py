"""What each request does to a session: a generator of effects, for every request that is known.

A handler raises Refused with nothing changed.  Some things that a *guest* can do are answered
mildly, for its front-end is not to blame: to read a configuration that is not there (an empty
reply), and to write one that it must not (ignored, unless an acknowledgement is asked for).
"""

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from devices.vhost_user.device import Effect, Reply
from devices.vhost_user.errors import Refused
from devices.vhost_user.guest_memory import GuestMemory, MappedRange
from devices.vhost_user.inflight import InflightArea, create_area
from devices.vhost_user.layout import (
    CONFIG_OF_DRIVER,
    CONFIG_OF_MIGRATION,
    F_PROTOCOL_FEATURES,
    MEMORY_BYTES_MAX,
    MEMORY_SLOTS_MAX,
    ProtocolFeature,
    Request,
)
from devices.vhost_user.messages import (
    Config,
    Inflight,
    MemoryRange,
    MemorySlot,
    MemoryTable,
    Message,
    VringAddresses,
    VringDescriptor,
    VringState,
    Word,
)
from devices.vhost_user.notifier import BackendChannel, DescriptorNotifier
from devices.vhost_user.session import Session
from devices.virtio.layout import IDX_MASK
from devices.virtio.queue_layout import check_queue_size

_TRANSPORT_FEATURES: Final = 1 << F_PROTOCOL_FEATURES


def _reply(message: Message, payload: Word | VringState | Config | None) -> Effect:
    return Reply(Message(message.request, payload, reply=True))


# Features and configuration.


def _get_features(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    yield _reply(message, Word(session.device.features | _TRANSPORT_FEATURES))


def _set_features(session: Session, payload: Word, message: Message) -> Iterator[Effect]:
    unknown = payload.value & ~(session.device.features | _TRANSPORT_FEATURES)
    if unknown:
        raise Refused(f"the features {unknown:#x} were not offered")
    if session.serving:
        if payload.value != session.features:
            raise Refused("the features cannot change while a vring is in use")
        return

    def change() -> None:
        session.features = payload.value
        session.begun = False  # A driver has been bound, perhaps another one.

    yield from session.paused(change)


def _get_protocol_features(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    yield _reply(message, Word(int(session.offered)))


def _set_protocol_features(session: Session, payload: Word, message: Message) -> Iterator[Effect]:
    unknown = payload.value & ~int(session.offered)
    if unknown:
        raise Refused(f"the protocol features {unknown:#x} were not offered")
    session.protocol_features = ProtocolFeature(payload.value)
    yield from ()


def _get_queue_num(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    yield _reply(message, Word(len(session.vrings)))


def _set_owner(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    session.owned = True
    yield from ()


def _reset_owner(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    """No longer in use; the protocol recommends to disable all vrings."""
    for vring in session.vrings:
        vring.enabled = False
        yield from session.stop(vring)
        vring.let_go()


def _reset_device(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    for vring in session.vrings:
        yield from session.stop(vring)
        vring.reset()
    session.device.reset()
    session.begun = False
    session.features = None


def _set_backend_req_fd(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    session.connect_channel(BackendChannel(message.take_descriptor()))
    yield from ()


def _get_config(session: Session, payload: Config, message: Message) -> Iterator[Effect]:
    data = session.device.read_config(payload.offset, payload.size)
    found = None if data is None else Config(offset=payload.offset, data=data)
    yield _reply(message, found)


def _set_config(session: Session, payload: Config, message: Message) -> Iterator[Effect]:
    if payload.flags not in (CONFIG_OF_DRIVER, CONFIG_OF_MIGRATION):
        raise Refused(f"the flags {payload.flags:#x} are unknown")
    migration = payload.flags == CONFIG_OF_MIGRATION
    written = session.device.write_config(payload.offset, payload.data, migration=migration)
    if not written and message.need_reply:
        raise Refused(f"{payload.size} bytes at {payload.offset} are not the driver's")
    yield from ()


# Memory.


def _set_mem_table(session: Session, payload: MemoryTable, message: Message) -> Iterator[Effect]:
    if not payload.ranges:
        raise Refused("a memory table without regions")
    yield from _change_memory(session, (), payload.ranges, message)


def _get_max_mem_slots(session: Session, payload: None, message: Message) -> Iterator[Effect]:
    yield _reply(message, Word(MEMORY_SLOTS_MAX))


def _add_mem_reg(session: Session, payload: MemorySlot, message: Message) -> Iterator[Effect]:
    if len(session.memory.mapped) >= MEMORY_SLOTS_MAX:
        raise Refused(f"more than {MEMORY_SLOTS_MAX} memory regions")
    yield from _change_memory(session, session.memory.mapped, (payload.range,), message)


def _rem_mem_reg(session: Session, payload: MemorySlot, message: Message) -> Iterator[Effect]:
    gone: MemoryRange = payload.range
    # The offset in the file is not compared: front-ends leave it out here.
    kept = tuple(
        m
        for m in session.memory.mapped
        if (m.range.guest_addr, m.range.size_bytes, m.range.user_addr)
        != (gone.guest_addr, gone.size_bytes, gone.user_addr)
    )
    if len(kept) == len(session.memory.mapped):
        raise Refused(f"there is no such memory region at {gone.guest_addr:#x}")
    yield from _change_memory(session, kept, (), message)


def _change_memory(
    session: Session,
    kept: tuple[MappedRange, ...],
    added: tuple[MemoryRange, ...],
    message: Message,
) -> Iterator[Effect]:
    """Have the ranges `kept`, and `added`, whose descriptors came with the message."""
    claimed = sum(m.range.size_bytes for m in kept) + sum(r.size_bytes for r in added)
    if claimed > MEMORY_BYTES_MAX:
        raise Refused(f"{claimed} bytes of memory; at most {MEMORY_BYTES_MAX} would work")
    fresh: list[MappedRange] = []
    try:
        for described in added:
            fresh.append(MappedRange.map(described, message.take_descriptor()))
        memory = GuestMemory((*kept, *fresh))
        for vring in session.vrings:
            if vring.queue is not None:
                vring.find(memory)  # Refused, if it would lose its place.

        def change() -> None:
            before, session.memory = session.memory, memory
            fresh.clear()
            if session.begun:  # It may look at the old memory once more.
                session.device.replace_memory(memory.address_space)
            before.close(keep=memory)

        yield from session.paused(change)
    finally:
        for unused in fresh:
            unused.close()


# Vrings.


def _set_vring_num(session: Session, payload: VringState, message: Message) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    vring.check_idle("be resized")
    try:
        check_queue_size(payload.num)
    except ValueError as error:
        raise Refused(f"vring {vring.index}: {error}") from None
    yield from session.change(vring, size=payload.num)


def _set_vring_addr(
    session: Session, payload: VringAddresses, message: Message
) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    vring.check_idle("be moved")
    vring.check_addresses(payload, session.memory)
    yield from session.change(vring, addresses=payload)


def _set_vring_base(session: Session, payload: VringState, message: Message) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    vring.check_idle("be moved")
    if payload.num > IDX_MASK:
        raise Refused(
            f"vring {vring.index} from index {payload.num} on; 0 to {IDX_MASK} would work"
        )
    yield from session.change(vring, base=payload.num, broken=None)


def _get_vring_base(session: Session, payload: VringState, message: Message) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    yield from session.stop(vring)
    vring.broken = None
    vring.let_go()
    yield _reply(message, VringState(vring.index, vring.base))


def _set_vring_kick(
    session: Session, payload: VringDescriptor, message: Message
) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    if not payload.present:
        raise Refused("a vring that is polled, without kicks, is not supported")
    kick = DescriptorNotifier(message.take_descriptor())
    before = vring.kick
    try:
        yield from session.stop(vring)
        yield from session.change(vring, kick=kick)
    except BaseException:
        vring.kick = before
        kick.close()
        raise
    if before is not None:
        before.close()


def _set_vring_call(
    session: Session, payload: VringDescriptor, message: Message
) -> Iterator[Effect]:
    session.vring(payload.index).call.connect(_notifier_of(payload, message))
    yield from ()


def _set_vring_err(
    session: Session, payload: VringDescriptor, message: Message
) -> Iterator[Effect]:
    session.vring(payload.index).error.connect(_notifier_of(payload, message))
    yield from ()


def _notifier_of(payload: VringDescriptor, message: Message) -> DescriptorNotifier | None:
    return DescriptorNotifier(message.take_descriptor()) if payload.present else None


def _set_vring_enable(session: Session, payload: VringState, message: Message) -> Iterator[Effect]:
    vring = session.vring(payload.index)
    if not session.enabling:
        raise Refused(f"feature bit {F_PROTOCOL_FEATURES} was not accepted")
    if payload.num > 1:
        raise Refused(f"a vring is enabled by 1 and disabled by 0, not by {payload.num}")
    yield from session.change(vring, enabled=bool(payload.num))


# The in-flight area.


def _get_inflight_fd(session: Session, payload: Inflight, message: Message) -> Iterator[Effect]:
    made, fd = create_area(payload, len(session.vrings))
    try:
        yield Reply(Message(message.request, made, reply=True, descriptors=[fd]))
    finally:
        os.close(fd)


def _set_inflight_fd(session: Session, payload: Inflight, message: Message) -> Iterator[Effect]:
    if session.serving:
        raise Refused("the in-flight area cannot change while a vring is in use")
    session.area = InflightArea(payload, message.take_descriptor(), len(session.vrings))
    yield from ()


HANDLERS: Final[dict[int, Callable[[Session, Any, Message], Iterator[Effect]]]] = {
    Request.GET_FEATURES: _get_features,
    Request.SET_FEATURES: _set_features,
    Request.SET_OWNER: _set_owner,
    Request.RESET_OWNER: _reset_owner,
    Request.SET_MEM_TABLE: _set_mem_table,
    Request.SET_VRING_NUM: _set_vring_num,
    Request.SET_VRING_ADDR: _set_vring_addr,
    Request.SET_VRING_BASE: _set_vring_base,
    Request.GET_VRING_BASE: _get_vring_base,
    Request.SET_VRING_KICK: _set_vring_kick,
    Request.SET_VRING_CALL: _set_vring_call,
    Request.SET_VRING_ERR: _set_vring_err,
    Request.GET_PROTOCOL_FEATURES: _get_protocol_features,
    Request.SET_PROTOCOL_FEATURES: _set_protocol_features,
    Request.GET_QUEUE_NUM: _get_queue_num,
    Request.SET_VRING_ENABLE: _set_vring_enable,
    Request.SET_BACKEND_REQ_FD: _set_backend_req_fd,
    Request.GET_CONFIG: _get_config,
    Request.SET_CONFIG: _set_config,
    Request.GET_INFLIGHT_FD: _get_inflight_fd,
    Request.SET_INFLIGHT_FD: _set_inflight_fd,
    Request.RESET_DEVICE: _reset_device,
    Request.GET_MAX_MEM_SLOTS: _get_max_mem_slots,
    Request.ADD_MEM_REG: _add_mem_reg,
    Request.REM_MEM_REG: _rem_mem_reg,
}
assert set(HANDLERS) == set(Request)
