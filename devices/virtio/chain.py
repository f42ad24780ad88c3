"""A descriptor chain as the device has copied and checked it (VIRTIO 1.3, section 2.7.5)."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.virtio.layout import SEGMENT


class Chain(NamedTuple):
    """One request: what the device may read, and then what it may write.

    `head` is what `DeviceQueue.push_used` wants back.  The two arrays are `SEGMENT[n]`, private
    copies; their addresses are guest-physical and *not* checked: a segment may be empty, or lie
    outside all memory.
    """

    head: int
    readable: npt.NDArray[Any]
    writable: npt.NDArray[Any]


def segments(addr: npt.ArrayLike, length: npt.ArrayLike) -> npt.NDArray[Any]:
    """`SEGMENT[n]` of n guest-physical addresses (64 bits) and n lengths (bytes, 32 bits).

    Raises ValueError if there are not as many lengths as addresses.
    """
    addresses, lengths = np.asarray(addr, dtype=np.uint64), np.asarray(length, dtype=np.uint32)
    if addresses.shape != lengths.shape:
        raise ValueError(f"{addresses.size} addresses, but {lengths.size} lengths")
    made = np.empty(addresses.shape, dtype=SEGMENT)
    made["addr"] = addresses
    made["len"] = lengths
    return made


NO_SEGMENTS: Final = np.empty(0, dtype=SEGMENT)
