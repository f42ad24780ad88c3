"""The features by name, and which queue has which number (VIRTIO 1.3, section 5.5.2, and Linux).

The specification numbers the queues 0 to 4, also when some do not exist.  Linux's transports (PCI,
MMIO, vDPA, UML) number those that exist one after another, so that the reporting queue is 2, 3 or
4, depending on the features that were *accepted*.  Linux is what is out there, and what we follow.
"""

from collections.abc import Iterable
from typing import Final

from devices.balloon.layout import (
    F_BALLOON_HINT,
    F_DEFLATE_ON_OOM,
    F_FREE_PAGE_HINT,
    F_MUST_TELL_HOST,
    F_PAGE_POISON,
    F_PAGE_REPORTING,
    F_STATS_VQ,
    QUEUES,
)
from devices.virtio.layout import F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1

# What may be offered, by name; what the ring can do is offered always, RING_PACKED it cannot.
FEATURES: Final = {
    "must_tell_host": F_MUST_TELL_HOST,
    "stats_vq": F_STATS_VQ,
    "deflate_on_oom": F_DEFLATE_ON_OOM,
    "free_page_hint": F_FREE_PAGE_HINT,
    "page_poison": F_PAGE_POISON,
    "page_reporting": F_PAGE_REPORTING,
}
# What no driver of today means by its bit, for drivers of our own.
PROPOSED: Final = {"balloon_hint": F_BALLOON_HINT}
RING_FEATURES: Final = 1 << F_VERSION_1 | 1 << F_INDIRECT_DESC | 1 << F_EVENT_IDX


def feature_bits(names: Iterable[str]) -> int:
    """The bits of features that are named as in `FEATURES` or `PROPOSED`, and the ring's.

    ValueError for any other name, and for two that collide: on the bit, or on the third word of the
    configuration.
    """
    named = tuple(names)
    for other in ("deflate_on_oom", "free_page_hint"):
        if "balloon_hint" in named and other in named:
            raise ValueError(f"balloon_hint and {other} are in the same place; leave one of them")
    bits, known = RING_FEATURES, FEATURES | PROPOSED
    for name in named:
        if name not in known:
            raise ValueError(f"no feature {name!r}; there are: {', '.join(known)}")
        bits |= 1 << known[name]
    return bits


def queue_indices(accepted_features: int) -> dict[str, int]:
    """The queues that exist with these features, by name (`layout.QUEUES`), and their numbers.

    >>> queue_indices(1 << F_PAGE_REPORTING)
    {'inflate': 0, 'deflate': 1, 'reporting': 2}
    """
    names = (n for n, bit in QUEUES if bit is None or accepted_features >> bit & 1)
    return {name: index for index, name in enumerate(names)}
