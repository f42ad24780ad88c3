"""What the device does with the chains of one kind of queue."""

from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from devices.balloon.layout import DISCARD_RANGE
from devices.memory.address_space import AddressSpace
from devices.virtio.chain import Chain

NO_RANGES: Final = np.empty(0, dtype=DISCARD_RANGE)


class Handler(Protocol):
    """One kind of queue."""

    def ranges(self, chain: Chain, address_space: AddressSpace) -> npt.NDArray[Any]:
        """What is to be discarded for this chain, `DISCARD_RANGE[n]`; n may be 0.

        Raises DriverError for a chain after which the device cannot go on.
        """

    def reset(self) -> None:
        """The driver begins anew; what was counted stays."""

    def statistics(self) -> Any:
        """A frozen snapshot."""

    def validate(self) -> None:
        """Assert the invariants."""
