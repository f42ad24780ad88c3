import numpy as np
import pytest

from devices.memory.address_space import AddressSpace, MemoryRegion
from devices.virtio.errors import DriverError
from devices.virtio.queue_layout import QueueLayout, find_queue
from tests.devices.rings import QUEUE_ADDR, RAM_ADDR, RAM_BYTES, Rings, aligned_bytes


def test_2_7_parts_have_the_sizes_and_alignments_of_the_specification() -> None:
    for size in (1, 2, 8, 256, 32768):
        layout = QueueLayout(size=size, table_entries=3)
        assert layout.avail_offset == 16 * size
        assert layout.used_offset >= layout.avail_offset + 6 + 2 * size
        assert layout.used_offset % 4 == 0
        assert layout.tables_offset >= layout.used_offset + 6 + 8 * size
        assert layout.tables_offset % 16 == 0
        assert layout.size_bytes == layout.tables_offset + 16 * size * 3


def test_2_7_6_and_2_7_8_fields_lie_where_the_specification_puts_them() -> None:
    layout = QueueLayout(size=4)
    memory = aligned_bytes(layout.size_bytes)
    views = layout.views(memory, QUEUE_ADDR)
    views.avail["word"] = [1, 2, 10, 11, 12, 13, 3]  # flags, idx, ring[4], used_event
    avail = memory[64 : 64 + 14].view("<u2")
    assert avail.tolist() == [1, 2, 10, 11, 12, 13, 3]
    views.used_ring[3] = (0x11111111, 0x22222222)
    views.used[-1]["word"] = 0x3333
    used = memory[layout.used_offset :].tobytes()
    assert used[4 + 3 * 8 : 6 + 4 * 8].hex() == "11111111" + "22222222" + "3333"


@pytest.mark.parametrize("size", [0, 3, -4, 65536])
def test_2_7_a_queue_size_is_a_power_of_two_up_to_32768(size: int) -> None:
    with pytest.raises(ValueError, match="a power of two from 1 to 32768 would work"):
        QueueLayout(size=size)


def test_memory_that_does_not_fit_is_rejected() -> None:
    layout = QueueLayout(size=4)
    with pytest.raises(ValueError, match="needs uint8"):
        layout.views(aligned_bytes(layout.size_bytes - 1), QUEUE_ADDR)
    with pytest.raises(ValueError, match="not aligned to 16 bytes"):
        layout.views(aligned_bytes(layout.size_bytes), QUEUE_ADDR + 4)


def test_a_device_finds_the_parts_by_guest_physical_address() -> None:
    rings = Rings(size=8)
    layout = QueueLayout(size=8, table_entries=8)
    found = find_queue(
        rings.address_space,
        size=8,
        descriptors_addr=QUEUE_ADDR,
        avail_addr=QUEUE_ADDR + layout.avail_offset,
        used_addr=QUEUE_ADDR + layout.used_offset,
    )
    for part in ("descriptors", "avail", "used", "used_ring"):
        ours, theirs = getattr(rings.views, part), getattr(found, part)
        assert (ours.ctypes.data, ours.shape, ours.dtype) == (
            theirs.ctypes.data,
            theirs.shape,
            theirs.dtype,
        )


GOOD = {"size": 8, "descriptors_addr": 0, "avail_addr": 512, "used_addr": 1024}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 7}, "power of two"),
        ({"descriptors_addr": 8}, "not aligned to 16 bytes"),
        ({"avail_addr": 513}, "not aligned to 2 bytes"),
        ({"used_addr": 1026}, "not aligned to 4 bytes"),
        ({"used_addr": 4096 - 68}, "not inside one memory region"),
        ({"avail_addr": (1 << 64) - 2}, "not inside one memory region"),
        ({"descriptors_addr": RAM_ADDR}, "not inside one memory region"),  # It has no bytes.
    ],
)
def test_2_7_1_misplaced_parts_are_a_drivers_error(change: dict[str, int], message: str) -> None:
    space = AddressSpace(
        [
            MemoryRegion(guest_addr=0, size_bytes=4096, memory=aligned_bytes(4096)),
            MemoryRegion(guest_addr=RAM_ADDR, size_bytes=RAM_BYTES),
        ]
    )
    assert isinstance(find_queue(space, **GOOD).used, np.ndarray)
    with pytest.raises(DriverError, match=message):
        find_queue(space, **(GOOD | change))
