"""More memory than one region."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tests.devices.vhost_user.machines import GUEST_ADDR, USER_ADDR, GuestMemory


@contextmanager
def second_memory() -> Iterator[GuestMemory]:
    """A region of its own, far from the first."""
    memory = GuestMemory()
    memory.range = replace(
        memory.range, guest_addr=GUEST_ADDR + (1 << 32), user_addr=USER_ADDR - (1 << 32)
    )
    yield memory
    memory.close()
