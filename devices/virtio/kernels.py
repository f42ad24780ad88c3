"""What both halves do with the words of a ring (VIRTIO 1.3, section 2.7), a batch a call.

Arrays are named and shaped as in `queue_layout.QueueViews` and `layout`.  Everything that the
other side can write is loaded exactly once, checked, and used from private memory.  No kernel
loops further than the queue is long, nor reads outside the arrays it is given.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from devices.memory.atomics import (
    fence,
    load_acquire,
    load_relaxed,
    store_relaxed,
    store_release,
)
from devices.memory.jit import kernel
from devices.virtio.layout import (
    AVAIL_IDX_JUMPED,
    CHAIN_BYTES_MAX,
    CHAIN_COMPLETE,
    CHAIN_IN_TABLE,
    CHAIN_LOOPS,
    CHAIN_NONE,
    CHAIN_TOO_MANY_BYTES,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    FLAGS_WORD,
    HEAD_OUTSIDE,
    IDX_MASK,
    IDX_WORD,
    INDIRECT_AND_NEXT,
    INDIRECT_FORBIDDEN,
    NEXT_OUTSIDE,
    NO_DESCRIPTORS,
    NO_NOTIFICATION,
    READABLE_AFTER_WRITABLE,
    RING_WORDS_START,
    TOO_MANY_BYTES,
    USED_IDX_JUMPED,
    USED_NEVER_LENT,
    USED_TOO_LONG,
)

Records = npt.NDArray[Any]


@kernel
def publish_idx(
    own: Records, other: Records, event_word: int, event_idx: int, old: int, new: int
) -> bool:
    """Move the idx of our own ring from `old` to `new`; whether the other side is to be notified.

    `event_word`: where the other side's ring holds its event (2.7.7.2, 2.7.10.1); `event_idx`: 1
    if that was negotiated, else 0, and its flags hold.
    """
    store_release(own, IDX_WORD, "word", new)
    fence()
    if event_idx == 0:
        return bool((int(load_relaxed(other, FLAGS_WORD, "word")) & NO_NOTIFICATION) == 0)
    event = int(load_relaxed(other, event_word, "word"))
    return bool(((new - event - 1) & IDX_MASK) < ((new - old) & IDX_MASK))


@kernel
def ask_notification(own: Records, word: int, value: int, other: Records) -> int:
    """Store in our own ring whether or when we want to be notified; then the other ring's idx."""
    store_relaxed(own, word, "word", value)
    fence()
    return int(load_acquire(other, IDX_WORD, "word"))


@kernel
def add_chain(
    descriptors: Records,
    avail: Records,
    tables: Records,
    tables_addr: int,
    table_entries: int,
    slots: Records,
    free: Records,
    readable: Records,
    writable: Records,
    avail_idx: int,
) -> int:
    """Driver: lay a chain into descriptors and its head into the ring, not yet visible.

    In an indirect table if it has 2 .. `table_entries` segments.  Returns the head, or
    NO_DESCRIPTORS or TOO_MANY_BYTES, with nothing changed.
    """
    size = len(descriptors)
    count = len(readable) + len(writable)
    indirect = 1 < count <= table_entries
    needed = 1 if indirect else count
    if needed > free[0]["count"]:
        return NO_DESCRIPTORS
    readable_bytes = np.int64(0)
    for i in range(len(readable)):
        readable_bytes += np.int64(readable[i]["len"])
    writable_bytes = np.int64(0)
    for i in range(len(writable)):
        writable_bytes += np.int64(writable[i]["len"])
    if readable_bytes + writable_bytes > CHAIN_BYTES_MAX:
        return TOO_MANY_BYTES
    head = np.int64(free[0]["head"])
    base = head * table_entries if indirect else np.int64(0)
    chain = tables if indirect else descriptors
    at = base if indirect else head
    for i in range(count):
        following = at + 1 if indirect else np.int64(slots[at]["next"])
        flags = np.int64(DESC_F_NEXT) if i + 1 < count else np.int64(0)
        if i < len(readable):
            chain[at]["addr"] = readable[i]["addr"]
            chain[at]["len"] = readable[i]["len"]
        else:
            chain[at]["addr"] = writable[i - len(readable)]["addr"]
            chain[at]["len"] = writable[i - len(readable)]["len"]
            flags |= DESC_F_WRITE
        chain[at]["flags"] = flags
        chain[at]["next"] = following - base if i + 1 < count else 0
        at = following
    if indirect:
        descriptors[head]["addr"] = tables_addr + 16 * base
        descriptors[head]["len"] = 16 * count
        descriptors[head]["flags"] = DESC_F_INDIRECT
        descriptors[head]["next"] = 0
        at = np.int64(slots[head]["next"])
    free[0]["head"] = at
    free[0]["count"] -= needed
    slots[head]["lent"] = needed
    slots[head]["writable"] = writable_bytes
    store_relaxed(avail, RING_WORDS_START + (avail_idx & (size - 1)), "word", head)
    return int(head)


@kernel
def take_used(
    used: Records,
    used_ring: Records,
    last_used: int,
    outstanding: int,
    slots: Records,
    free: Records,
    taken: Records,
) -> int:
    """Driver: take every used chain back, into `taken`; how many, or USED_*.

    `outstanding`: chains published and not yet taken back.  Where a chain was never lent, those
    before it have been taken back all the same: the queue is broken then anyway.
    """
    size = len(used_ring)
    count = (np.int64(load_acquire(used, IDX_WORD, "word")) - last_used) & IDX_MASK
    if count > outstanding:
        return USED_IDX_JUMPED
    for i in range(count):
        at = (last_used + i) & (size - 1)
        head = np.int64(load_relaxed(used_ring, at, "id"))
        length = np.int64(load_relaxed(used_ring, at, "len"))
        taken[i]["head"] = head
        taken[i]["len"] = length
        if head >= size or slots[head]["lent"] == 0:
            return USED_NEVER_LENT
        if length > slots[head]["writable"]:
            return USED_TOO_LONG
        last = head
        for _ in range(slots[head]["lent"] - 1):
            last = np.int64(slots[last]["next"])
        slots[last]["next"] = free[0]["head"]
        free[0]["head"] = head
        free[0]["count"] += slots[head]["lent"]
        slots[head]["lent"] = 0
    return int(count)


@kernel
def walk_chain(
    table: Records, start: int, indirect_allowed: int, segments: Records, walk: Records
) -> int:
    """Device: copy the rest of a chain, from `table[start]` on; CHAIN_* or a breach.

    `segments` has room for all of `table` behind the `walk.readable + walk.writable` it holds.
    """
    at = np.int64(start)
    for _ in range(len(table)):
        addr = load_relaxed(table, at, "addr")
        length = np.int64(load_relaxed(table, at, "len"))
        flags = np.int64(load_relaxed(table, at, "flags"))
        following = np.int64(load_relaxed(table, at, "next"))
        if flags & DESC_F_INDIRECT:
            if indirect_allowed == 0:
                return INDIRECT_FORBIDDEN
            if flags & DESC_F_NEXT:
                return INDIRECT_AND_NEXT
            walk[0]["table_addr"] = addr
            walk[0]["table_bytes"] = length
            return CHAIN_IN_TABLE
        filled = walk[0]["readable"] + walk[0]["writable"]
        segments[filled]["addr"] = addr
        segments[filled]["len"] = length
        if flags & DESC_F_WRITE:
            walk[0]["writable"] += 1
        elif walk[0]["writable"] > 0:
            return READABLE_AFTER_WRITABLE
        else:
            walk[0]["readable"] += 1
        walk[0]["bytes"] += length
        if walk[0]["bytes"] > CHAIN_BYTES_MAX:
            return CHAIN_TOO_MANY_BYTES
        if not flags & DESC_F_NEXT:
            return CHAIN_COMPLETE
        if following >= len(table):
            return NEXT_OUTSIDE
        at = following
    return CHAIN_LOOPS


@kernel
def take_chain(
    descriptors: Records,
    avail: Records,
    last_avail: int,
    indirect_allowed: int,
    segments: Records,
    walk: Records,
) -> int:
    """Device: copy the next available chain into `segments[:N]`; CHAIN_* or a breach."""
    size = len(descriptors)
    pending = (np.int64(load_acquire(avail, IDX_WORD, "word")) - last_avail) & IDX_MASK
    if pending == 0:
        return CHAIN_NONE
    if pending > size:
        return AVAIL_IDX_JUMPED
    word = RING_WORDS_START + (last_avail & (size - 1))
    head = np.int64(load_relaxed(avail, word, "word"))
    walk[0]["head"] = head
    if head >= size:
        return HEAD_OUTSIDE
    walk[0]["readable"] = 0
    walk[0]["writable"] = 0
    walk[0]["bytes"] = 0
    return walk_chain(descriptors, int(head), indirect_allowed, segments, walk)


@kernel
def put_used(used_ring: Records, used_idx: int, head: int, length: int) -> None:
    """Device: lay an entry into the used ring, not yet visible."""
    at = used_idx & (len(used_ring) - 1)
    store_relaxed(used_ring, at, "id", head)
    store_relaxed(used_ring, at, "len", length)
