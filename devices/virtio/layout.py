"""The split virtqueue as it lies in memory (VIRTIO 1.3, section 2.7).

    part          alignment   size, bytes   written by
    descriptors   16          16 N          driver
    available     2           6 + 2 N       driver
    used          4           6 + 8 N       device

N is the queue size, a power of two.  All words are little-endian.  Two of the parts are arrays of
16-bit words to the kernels, so that they are compiled once and not once for every N:

    available     flags, idx, ring[N], used_event                   words 0, 1, 2 .. N+1, N+2
    used          flags, idx, ring[N] of {id, len}, avail_event     words 0, 1, 2 .. 4N+1, 4N+2

Orderings: the writer of a ring stores `idx` with release, behind the entries that it makes visible;
the reader loads it with acquire, before them.  A full fence stands between the store of `idx` and
the load of the other side's wish to be notified, and between the store of that wish and the load
of `idx`: with less, both could see the old value, and a wake-up were lost.
"""

from typing import Final

import numpy as np

QUEUE_SIZE_MAX: Final = 32768  # 2.7

VIRTQ_DESC: Final = np.dtype(  # 2.7.5
    [("addr", "<u8"), ("len", "<u4"), ("flags", "<u2"), ("next", "<u2")]
)
assert VIRTQ_DESC.itemsize == 16

VIRTQ_USED_ELEM: Final = np.dtype([("id", "<u4"), ("len", "<u4")])  # 2.7.8
assert VIRTQ_USED_ELEM.itemsize == 8

RING_WORD: Final = np.dtype([("word", "<u2")])
assert RING_WORD.itemsize == 2

DESC_F_NEXT: Final = 1
DESC_F_WRITE: Final = 2
DESC_F_INDIRECT: Final = 4

AVAIL_F_NO_INTERRUPT: Final = 1  # 2.7.6
USED_F_NO_NOTIFY: Final = 1  # 2.7.8
NO_NOTIFICATION: Final = 1
assert NO_NOTIFICATION == AVAIL_F_NO_INTERRUPT == USED_F_NO_NOTIFY

FLAGS_WORD: Final = 0
IDX_WORD: Final = 1
RING_WORDS_START: Final = 2
IDX_MASK: Final = 0xFFFF

DESC_ALIGN: Final = 16  # 2.7
AVAIL_ALIGN: Final = 2
USED_ALIGN: Final = 4


def avail_words(size: int) -> int:
    """16-bit words of an available ring; the last one is `used_event`."""
    return 3 + size


def used_words(size: int) -> int:
    """16-bit words of a used ring; the last one is `avail_event`."""
    return 3 + 4 * size


assert 2 * avail_words(256) == 6 + 2 * 256
assert 2 * used_words(256) == 6 + 8 * 256

# Feature bits of the ring and the transport (section 6).
F_INDIRECT_DESC: Final = 28
F_EVENT_IDX: Final = 29
F_VERSION_1: Final = 32
F_ACCESS_PLATFORM: Final = 33
F_RING_PACKED: Final = 34

TABLE_ENTRIES_MAX: Final = 65535  # of an indirect table: `next` cannot name more
CHAIN_BYTES_MAX: Final = 1 << 32  # 2.7.5.2

# What follows is private to one half and shared with nobody.

SEGMENT: Final = np.dtype([("addr", "<u8"), ("len", "<u4")])  # one buffer of a chain

# A descriptor as the driver keeps it, since the device could overwrite the real one.
SLOT: Final = np.dtype(
    [
        ("next", "<i8"),  # the next descriptor of the free list, or of the chain
        ("lent", "<i8"),  # at a chain's head: descriptors that the chain holds; else 0
        ("writable", "<i8"),  # at a chain's head: bytes that the device may write
    ]
)
FREE_LIST: Final = np.dtype([("head", "<i8"), ("count", "<i8")])

USED_CHAIN: Final = np.dtype([("head", "<i8"), ("len", "<i8")])  # as `take_used` hands them out

# How far a walk along a chain has come, and what it has found.
WALK: Final = np.dtype(
    [
        ("head", "<i8"),
        ("readable", "<i8"),  # segments
        ("writable", "<i8"),  # segments
        ("bytes", "<i8"),  # of all segments
        ("table_addr", "<u8"),  # of the indirect table that the chain goes on in
        ("table_bytes", "<i8"),
    ]
)

# What `add_chain` and `take_used` return, if not a number from 0 on.
NO_DESCRIPTORS: Final = -1
USED_IDX_JUMPED: Final = -2
USED_NEVER_LENT: Final = -3
USED_TOO_LONG: Final = -4
TOO_MANY_BYTES: Final = -5

# What `take_chain` and `walk_chain` return.
CHAIN_COMPLETE: Final = 0
CHAIN_NONE: Final = 1
CHAIN_IN_TABLE: Final = 2  # the chain goes on in an indirect table
AVAIL_IDX_JUMPED: Final = 3
HEAD_OUTSIDE: Final = 4
NEXT_OUTSIDE: Final = 5
CHAIN_LOOPS: Final = 6
READABLE_AFTER_WRITABLE: Final = 7
CHAIN_TOO_MANY_BYTES: Final = 8
INDIRECT_FORBIDDEN: Final = 9
INDIRECT_AND_NEXT: Final = 10
