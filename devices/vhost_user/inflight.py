"""The in-flight area: which chains a back-end has taken, so that its successor can go on.

The area is a file that the back-end makes (`create_area`) and the front-end keeps.  When the
back-end dies, the front-end hands it to the next one, which takes the chains once more that its
predecessor had not given back.  A row for each descriptor, at the head of each chain:

    taking a chain            counter = the next number, then inflight = 1
    giving a batch back       link its rows by `next`, last_batch_head = the last one;
                              publish the used ring's idx;
                              inflight = 0 in each, then used_idx = that idx
    after a death             used_idx != the ring's idx: the batch was published, but is still
                              marked: clear it.  Then take every marked chain again, by counter,
                              and go on behind them

A death between any two of these steps loses no chain, and none is given back twice.  The stores
need no fences: a successor reads them when their author is dead.  What the area says is not
believed: it has been in other hands.
"""

import fcntl
import os
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from devices.memory.mapping import map_foreign_file
from devices.vhost_user.errors import Refused
from devices.vhost_user.guest_memory import check_file_range
from devices.vhost_user.layout import (
    INFLIGHT_DESC,
    INFLIGHT_HEADER,
    INFLIGHT_VERSION,
    inflight_queue_bytes,
)
from devices.vhost_user.messages import Inflight
from devices.virtio.layout import IDX_MASK
from devices.virtio.queue_layout import check_queue_size


def _check_queues(wanted: Inflight, queues_max: int) -> int:
    """Bytes of an area for so many queues; raises Refused for too many, or too large ones."""
    if not 1 <= wanted.queues <= queues_max:
        raise Refused(f"an in-flight area for {wanted.queues} queues; 1 to {queues_max} would work")
    try:
        check_queue_size(wanted.queue_size)
    except ValueError as error:
        raise Refused(str(error)) from None
    return wanted.queues * inflight_queue_bytes(wanted.queue_size)


def create_area(wanted: Inflight, queues_max: int) -> tuple[Inflight, int]:
    """A new area, zeroed, in a memfd that cannot be resized: its description and its descriptor.

    The caller closes the descriptor.  Raises Refused.
    """
    size_bytes = _check_queues(wanted, queues_max)
    fd = os.memfd_create("vhost-user-inflight", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except BaseException:
        os.close(fd)
        raise
    made = Inflight(queues=wanted.queues, queue_size=wanted.queue_size, mmap_size=size_bytes)
    return made, fd


class InflightArea:
    """A mapped area.  `fd` becomes ours and is closed at once: the mapping is enough.

    Raises Refused for a file that is too short, or queues that cannot be.
    """

    def __init__(self, described: Inflight, fd: int, queues_max: int) -> None:
        try:
            size_bytes = _check_queues(described, queues_max)
            if described.mmap_size < size_bytes:
                raise Refused(
                    f"an in-flight area of {described.mmap_size} bytes, but its queues need "
                    f"{size_bytes}"
                )
            check_file_range(fd, described.mmap_offset, size_bytes, "the in-flight area's file")
            if described.mmap_offset % INFLIGHT_DESC.itemsize:
                raise Refused(f"the in-flight area lies at {described.mmap_offset}, not aligned")
            self._memory, self._guard = map_foreign_file(fd, size_bytes, described.mmap_offset)
        except OSError as error:
            raise Refused(f"the in-flight area: {error}") from None
        finally:
            os.close(fd)
        self.queues: Final = described.queues
        self.queue_size: Final = described.queue_size

    @property
    def lost(self) -> bool:
        """Whether its file has shrunk."""
        return self._guard.lost

    def queue(self, index: int, size: int) -> "InflightQueue | None":
        """The part of queue `index`, of `size` entries; None for a queue that has none.

        Raises Refused if the queue is larger than the area says.
        """
        if index >= self.queues:
            return None
        if size > self.queue_size:
            raise Refused(
                f"vring {index} has {size} entries, but the in-flight area is for {self.queue_size}"
            )
        length = inflight_queue_bytes(self.queue_size)
        part = self._memory[index * length : (index + 1) * length]
        header_bytes, row_bytes = INFLIGHT_HEADER.itemsize, INFLIGHT_DESC.itemsize
        return InflightQueue(
            part[:header_bytes].view(INFLIGHT_HEADER),
            part[header_bytes : header_bytes + size * row_bytes].view(INFLIGHT_DESC),
        )


class InflightQueue:
    """What is in flight of one queue.

    header:  `INFLIGHT_HEADER[1]`
    rows:    `INFLIGHT_DESC[size]`
    """

    def __init__(self, header: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        self._header = header[0]
        self._rows = rows
        self._counter = 0

    def recover(self, used_idx: int) -> list[int]:
        """The heads that were taken and not given back, in order; `used_idx`: the ring's.

        Raises Refused if the area cannot be of this ring.
        """
        header, rows = self._header, self._rows
        if header["version"] == 0:
            rows["inflight"] = 0
            header["desc_num"] = len(rows)
            header["used_idx"] = used_idx
            header["version"] = INFLIGHT_VERSION
        if header["version"] != INFLIGHT_VERSION or header["desc_num"] != len(rows):
            raise Refused(
                f"an in-flight area of version {header['version']} for {header['desc_num']} "
                f"entries; of version {INFLIGHT_VERSION} for {len(rows)} would work"
            )
        unfinished = (used_idx - int(header["used_idx"])) & IDX_MASK
        if unfinished > len(rows):
            raise Refused(f"the in-flight area is {unfinished} chains behind its ring")
        head = int(header["last_batch_head"])
        for _ in range(unfinished):
            if head >= len(rows):
                raise Refused(f"the in-flight area names descriptor {head} of {len(rows)}")
            rows[head]["inflight"] = 0
            head = int(rows[head]["next"])
        header["used_idx"] = used_idx
        heads = np.flatnonzero(rows["inflight"])
        heads = heads[np.argsort(rows["counter"][heads], kind="stable")]
        # A counter that others wrote may be as large as it likes; ours then begins anew.
        self._counter = int(rows["counter"][heads[-1]]) & ((1 << 62) - 1) if len(heads) else 0
        return [int(head) for head in heads]

    def take(self, head: int) -> None:
        """The chain at `head` was taken."""
        self._counter += 1
        self._rows[head]["counter"] = self._counter
        self._rows[head]["inflight"] = 1

    def begin_batch(self, heads: list[int]) -> None:
        """These chains are given back as soon as the used ring's idx is published."""
        for head, following in pairwise(heads):
            self._rows[following]["next"] = head
        self._header["last_batch_head"] = heads[-1]

    def end_batch(self, heads: list[int], used_idx: int) -> None:
        """It was published."""
        for head in heads:
            self._rows[head]["inflight"] = 0
        self._header["used_idx"] = used_idx
