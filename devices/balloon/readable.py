"""What a driver says in the readable buffers of a chain, copied once before it is looked at."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.address_space import AddressSpace


class Readable(NamedTuple):
    """A private copy of the bytes, and what was left out: the guest may have meant it, or not."""

    data: npt.NDArray[np.uint8]
    excess_bytes: int  # beyond the most that is taken
    unreachable: int  # buffers that lie in no memory with bytes, or hold none


_NO_BYTES: Final = np.empty(0, dtype=np.uint8)


def copy_readable(
    segments: npt.NDArray[Any], address_space: AddressSpace, bytes_max: int
) -> Readable:
    """The bytes of `SEGMENT[n]` one after another, `bytes_max` at most.

    The work is bounded by `bytes_max` and by n, whatever lengths the driver names.
    """
    parts, total, unreachable = [_NO_BYTES], 0, 0
    for addr, length in segments.tolist():
        view = address_space.view(addr, length)
        if view is None:
            unreachable += 1
            continue
        if total < bytes_max:
            parts.append(view[: bytes_max - total])
        total += length
    return Readable(np.concatenate(parts), max(0, total - bytes_max), unreachable)
