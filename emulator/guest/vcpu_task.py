"""One vCPU's life: it runs its part of the workload, and gives its per-CPU lists back or not."""

from collections.abc import Awaitable, Callable

from emulator.guest.mm.layout import ACTOR_DONE, ACTOR_RUNNING
from emulator.guest.vcpu import Vcpu


async def run_vcpu(vcpu: Vcpu, workload: Callable[[Vcpu], Awaitable[None]]) -> None:
    """Run `workload` on `vcpu`; its state is what barriers and the supervisor look at."""
    actor = vcpu.mm.actors[vcpu.index]
    actor["state"] = ACTOR_RUNNING
    try:
        await workload(vcpu)
    finally:
        vcpu.end_phases()
        actor["state"] = ACTOR_DONE
