"""`[host]` of a scenario: the memory, the swap and the speed of what guests run on."""

import msgspec

from emulator.config.units import PAGE_BYTES


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What guests run on.

    In virtual time, where it is modelled and not measured:

    `discard`: how fast it gives memory back; 7.8 GiB/s is what punching 2 MiB holes into a memfd
    of small pages reaches on the reference machine.

    Under either launcher:

    `huge_pages`: the host backs guests by pages of 2 MiB where nothing is behind any of their 512
    pages; a discard of a part splits one.  Behind a memfd those are the system's own
    (MADV_COLLAPSE, Linux 6.1; small ones where it refuses); accounted RAM has them in virtual time
    only, and under `processes` the key does nothing to it.
    `join`: adjacent ranges of a report are discarded at once; without, each by itself, as QEMU does
    (virtio_balloon_handle_report).
    `memory`: what balloon managers take the host to have for its guests.  Without a swap nothing
    is enforced: what guests have resident beyond it is shown as it is.
    `swap`: what of that the host can write to its disk, so that guests with accounted RAM have no
    more than `memory` resident.
    `swap_read`: how long who accesses a page of 4 KiB waits that is in the swap; random reads of
    4 KiB with O_DIRECT take 84 to 120 us on the reference machine's disk, means of 5000 each.
    `swap_write`: how fast pages are written there, 1 MiB at a time: 2.0 to 2.6 GiB/s likewise.
    """

    discard_bytes_per_s: float = 7.8 * (1 << 30)
    huge_pages: bool = False
    join: bool = True
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    swap_read_s: float = 105e-6
    swap_write_bytes_per_s: float = 2.1 * (1 << 30)

    def __post_init__(self) -> None:
        if self.discard_bytes_per_s <= 0:
            raise ValueError("discard: must be above 0")
        if self.memory_bytes is not None and self.memory_bytes <= 0:
            raise ValueError("memory: must be above 0; leave the key out where it is not limited")
        if self.swap_bytes is not None and self.swap_bytes < PAGE_BYTES:
            raise ValueError("swap: must be 4KiB or more; leave the key out where there is none")
        if self.swap_bytes is not None and self.memory_bytes is None:
            raise ValueError("swap: is for what does not fit into host.memory; give that, too")
        if self.swap_read_s < 0 or self.swap_write_bytes_per_s <= 0:
            raise ValueError("swap_write: must be above 0, and swap_read not below")
