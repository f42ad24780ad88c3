"""The compiled loop of ageing: blocks are born at random and die on the tick drawn at birth."""

from typing import Any

from devices.memory.jit import i64, kernel
from emulator.guest.mm.layout import MOVABLE, NO_PAGE, RECLAIMABLE, UNMOVABLE
from emulator.guest.mm.lock_kernels import now
from emulator.workloads.kernels import alloc_touched, free_verified, next_random, random_order
from emulator.workloads.layout import LIFETIMES, NO_SLOT, SHARE_BITS


@kernel(inner=True)
def _free_tick(mm: Any, ram: Any, cpu: int, blocks: Any, wheel: Any, state: Any, tick: int) -> int:
    """Free all that dies on `tick`; how many blocks."""
    at = tick % wheel.size
    slot, freed = i64(wheel[at]), i64(0)
    wheel[at] = NO_SLOT
    while slot != NO_SLOT:
        pfn, order = i64(blocks[slot]["pfn"]), i64(blocks[slot]["order"])
        following = i64(blocks[slot]["next"])
        free_verified(mm, ram, cpu, pfn, order)
        blocks[slot]["next"] = state[0]["free_slot"]
        state[0]["free_slot"] = slot
        slot = following
        freed += 1
    return freed


@kernel(inner=True)
def _lifetime(state: Any, ticks_max: int) -> int:
    """Ticks until a new block dies: its kind by share, its length even from 1 to twice the mean."""
    control = state[0]
    draw = next_random(state) >> 11 & ((1 << SHARE_BITS) - 1)
    kind = i64(0)
    while kind < LIFETIMES - 1 and draw >= control["share"][kind]:
        kind += 1
    longest = min(2 * i64(control["ticks"][kind]), ticks_max)
    return 1 + (next_random(state) >> 7) % max(longest, i64(1))


@kernel(inner=True)
def _migratetype(state: Any) -> int:
    """Nine of ten are movable, the rest half unmovable, half reclaimable."""
    choice = (next_random(state) >> 9) % 20
    if choice == 0:
        return UNMOVABLE
    return RECLAIMABLE if choice == 1 else MOVABLE


@kernel
def age_ticks(
    mm: Any, ram: Any, cpu: int, blocks: Any, wheel: Any, state: Any, first: int, count: int
) -> int:
    """`count` ticks from `first` on: what dies is freed, `per_tick` blocks are born.

    A block for which there is no memory, or no place to remember it, is not born.  Returns `count`.
    """
    mm.actors[cpu]["now_ns"] = now(mm)
    control = state[0]
    for tick in range(first, first + count):
        _free_tick(mm, ram, cpu, blocks, wheel, state, tick)
        for _ in range(control["per_tick"]):
            slot = i64(control["free_slot"])
            order, migratetype = random_order(state), _migratetype(state)
            dies = (tick + _lifetime(state, wheel.size - 1)) % wheel.size
            pfn = NO_PAGE
            if slot != NO_SLOT:
                pfn = alloc_touched(mm, ram, cpu, order, migratetype)
            if pfn == NO_PAGE:
                control["refused"] += 1
                continue
            control["free_slot"] = blocks[slot]["next"]
            blocks[slot]["pfn"] = pfn
            blocks[slot]["order"] = order
            blocks[slot]["next"] = wheel[dies]
            wheel[dies] = slot
        control["tick"] = tick
    return count


@kernel
def free_ticks(
    mm: Any, ram: Any, cpu: int, blocks: Any, wheel: Any, state: Any, first: int, count: int
) -> int:
    """Free all that dies on `count` ticks from `first` on, whenever that is; returns `count`."""
    mm.actors[cpu]["now_ns"] = now(mm)
    for tick in range(first, first + count):
        _free_tick(mm, ram, cpu, blocks, wheel, state, tick)
    return count
