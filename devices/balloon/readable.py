"""What a driver says in the readable buffers of a chain, copied once before it is looked at."""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from devices.memory.address_space import NO_REGION, AddressSpace


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
    lengths = segments["len"].astype(np.int64)
    regions = address_space.indices_of(segments["addr"], segments["len"].astype(np.uint64))
    bare = [index for index, it in enumerate(address_space.regions) if it.memory is None]
    good = (regions != NO_REGION) & ~np.isin(regions, bare)
    addresses, lengths = segments["addr"][good], lengths[good]
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    wanted = np.minimum(lengths, bytes_max - (ends - lengths))
    parts = [_NO_BYTES]
    for index in np.flatnonzero(wanted > 0):
        view = address_space.view(int(addresses[index]), int(wanted[index]))
        assert view is not None, "it was inside a region with bytes just now"
        parts.append(view)
    return Readable(np.concatenate(parts), max(0, total - bytes_max), int(np.count_nonzero(~good)))
