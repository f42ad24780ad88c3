"""Which queue has which number (VIRTIO 1.3, section 5.5.2, and what Linux makes of it).

The specification numbers the queues 0 to 4, also when some do not exist.  Linux's transports (PCI,
MMIO, vDPA, UML) number those that exist one after another, so that the reporting queue is 2, 3 or
4, depending on the features that were *accepted*.  Linux is what is out there, and what we follow.
"""

from devices.balloon.layout import QUEUES


def queue_indices(accepted_features: int) -> dict[str, int]:
    """The queues that exist with these features, by name (`layout.QUEUES`), and their numbers.

    >>> queue_indices(1 << F_PAGE_REPORTING)
    {'inflate': 0, 'deflate': 1, 'reporting': 2}
    """
    names = (n for n, bit in QUEUES if bit is None or accepted_features >> bit & 1)
    return {name: index for index, name in enumerate(names)}
