"""Where the host is used above a mark, each guest keeps its share of it, by weight.

    use > above    a guest keeps above * host memory * its weight / all weights, but never less than
                   `least` of its memory
    use < below    it keeps all that it has
    between        its target stays, so that it is not taken and given back in turn

Marks are fractions of the host's memory, `least` of the guest's.  The host's memory must be known.
"""

from dataclasses import dataclass
from typing import ClassVar

from emulator.host.managers.manager import Sight


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Parameters.  `weights`: of the guests in their order; of those not named 1."""

    name: ClassVar[str] = "share"
    needs_host_memory: ClassVar[bool] = True
    weights: tuple[float, ...] = ()
    above: float = 0.9
    below: float = 0.6
    least: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.below < self.above <= 1:
            raise ValueError(f"below: {self.below} and above, {self.above}, must ascend in 0 to 1")
        if not 0 <= self.least <= 1:
            raise ValueError(f"least: {self.least} is not from 0 to 1")
        if any(weight <= 0 for weight in self.weights):
            raise ValueError(f"weights: must all be above 0, not {list(self.weights)}")

    def decide(self, seen: Sight) -> int | None:
        """As above."""
        host = seen.host
        if host is None:
            return None
        use = 1 - host.free_bytes / host.memory_bytes
        if use < self.below:
            return seen.memory_bytes
        if use <= self.above:
            return None
        weights = [self._weight(index) for index in range(host.guests)]
        share = self.above * host.memory_bytes * weights[host.index] / sum(weights)
        return round(min(max(share, self.least * seen.memory_bytes), seen.memory_bytes))

    def _weight(self, index: int) -> float:
        return self.weights[index] if index < len(self.weights) else 1.0
