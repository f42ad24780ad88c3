"""What work costs in virtual time: `[cost]`, a table of prices.

In virtual time nothing takes time by itself.  A scenario with this table, even an empty one, makes
vCPUs, hinting task and host pay for what they do (`emulator.guest.cost`, `emulator.host.cost`);
without it a workload keeps its pace whatever it does, and no cost is shown.  Real processes pay in
real time and the table is not used.

The prices are those of single operations, measured apart from any mechanism on the reference
machine (2 vCPUs of an AMD EPYC of family 25, Linux 6.18, itself a guest), unless another source is
named.  No price was chosen by the outcome of a scenario.

What a discard costs running vCPUs is measured with a guest of KVM (`emulator.bench.kvm`), whose
back-end there is kvm_pvm: shadow page tables, in a machine that is itself a guest.  On hardware
with EPT or NPT an interruption may be cheaper.  The rule by which its figures become prices was
made before any scenario was run with them: `flushes` is the whole number that the guest, KVM's
counters and the system's agree on for blocks of 4 and 32 KiB;
`interruption` is the median of three runs of `bench kvm.interrupted_us_per_discard`, divided by it.
"""

import msgspec


class CostConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices, in seconds.

    exit             the guest is left and entered again: CPUID, which a hypervisor must intercept.
                     Paid for a host fault, and for a notification by whoever notifies.  Measured
                     with a guest of KVM: 2.9 us for a notification, and 5.4 to 5.8 us for a fault,
                     what the host does for it included
    interruption     by each running vCPU for each flush when the host takes memory away: 15.2 us a
                     discard (medians of three runs 14.8 to 18.8), with two flushes
    host_fault       what the host does when a vCPU touches a page that it has nothing behind: the
                     first touch of 4 KiB of shared memory by a process, zeroing included.  With the
                     exit 5.9 us; memory that the machine's own host had taken back cost 4 to 8 us
                     more a page
    host_fault_huge  the same for 2 MiB at once, in a file system of huge pages
    wake             a report until the host sleeps no more, and its acknowledgement until the guest
                     does not: a round trip through eventfds between two vCPUs.  A delay, no work
    report           the host's work on a report, its blocks apart: reading and writing an eventfd
    block            the host's work on a block of it, discarding apart: a descriptor is a quarter
                     of a cache line, which comes from another core in 0.1 to 0.5 us
    discard_call     of each discard, apart from its bytes: punching 4 KiB takes 1.97 us, of which
                     0.49 us are the page (`host.discard`); 64 KiB by the same two prices 9.3 us,
                     and measured 9.2
    flush            of each flush: the host waits until other cores have dropped what they cached.
                     Punching 2 MiB takes 8.5 us more while a process that maps it runs on another
                     core; 32 KiB 28 to 43 us more, with two flushes, while a guest of KVM does
    flushes          of each discard that finds memory, a number: the hypervisor flushes what its
                     vCPUs have cached, and then the kernel what the hypervisor's process has.  In
                     Linux with KVM kvm_mmu_notifier_invalidate_range_start and tlb_finish_mmu, each
                     an interrupt that waits for all processors concerned.  Measured: 2.0, 2.0 and
                     2.0 (the guest's view, KVM's exits, IPIs) for 4 KiB and for 32, and for 2 and 4
                     MiB of huge pages.  Without those 2 MiB take 2.0 and 4 MiB 3.0, one for each
                     page table, which is not modelled
    discard_huge     of each huge page in a discard: punching 4 MiB takes 10.4 us, 2 MiB 6.2 us
    lock             taking and releasing a zone's lock that nobody wants
    list_move        a block put on a free list or taken off one, under the lock: a buddy operation
                     in the emulator's own allocator
    list_step        a block passed over on the way along a free list, under the lock: a load that
                     misses every cache (pointer chase over 256 MiB in huge pages)
    """

    exit_s: float = 3.6e-6
    host_fault_s: float = 2.26e-6
    host_fault_huge_s: float = 73e-6
    wake_s: float = 44e-6
    report_s: float = 0.47e-6
    block_s: float = 0.1e-6
    discard_call_s: float = 1.48e-6
    flush_s: float = 8.5e-6
    flushes: int = 2
    interruption_s: float = 7.6e-6
    discard_huge_s: float = 4.2e-6
    lock_s: float = 2.2e-9
    list_move_s: float = 40e-9
    list_step_s: float = 155e-9

    def __post_init__(self) -> None:
        if not 0 <= self.flushes <= 100:
            raise ValueError(f"flushes: {self.flushes} is not one of 0 to 100")
