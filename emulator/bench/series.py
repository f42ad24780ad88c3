"""The series of `bench`: names, targets, what others reach, and where each is measured.

Names and units are a contract.  Importing this imports no compiled code: `measure` names a function
`measure(names, observer) -> {name: Measurement}` that is imported when it is run, once for all
series that name it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from emulator.config.parameters import suggest
from emulator.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Compared:
    """What somebody else reaches, in the series' unit, and under which conditions."""

    who: str
    figure: float
    source: str


@dataclass(frozen=True, slots=True)
class Measurement:
    """Values of one series; none of them: it could not be measured, and `note` says why."""

    values: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series; a target, if it has one, is `at_most` or `at_least`."""

    name: str
    unit: str
    measure: str  # "module:function"
    how: str
    at_most: float | None = None
    at_least: float | None = None
    compared_to: Compared | None = None

    def met(self, median: float) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.at_most is not None:
            return median <= self.at_most
        return None if self.at_least is None else median >= self.at_least


_HERE: Final = "emulator.bench"
_GUEST: Final = "guest of 8 GiB, one process, allocator alone: no page is touched"
_LLFREE: Final = "C implementation of 2026-06, release flags, 8 GiB, reference machine, 1 thread"

_KVM: Final = (
    "discards of 32 KiB that a guest of KVM has touched while its vCPU counts on another CPU, "
    "in turns with none"
)


def _llfree(figure: float, what: str, source: str = _LLFREE) -> Compared:
    return Compared("LLFree", figure, f"{what}; {source}")


def _churn(level: int, figure: float) -> Series:
    return Series(
        name=f"alloc.churn{level}_ns",
        unit="ns",
        measure=f"{_HERE}.alloc:measure_churn",
        how=f"free of a random page and allocation of one, {level} % of a {_GUEST}",
        at_most=150,
        compared_to=_llfree(figure, f"random put and get, {level} % full"),
    )


SERIES: Final = (
    Series(
        name="alloc.order0_pair_ns",
        unit="ns",
        measure=f"{_HERE}.alloc:measure_pairs",
        how=f"allocation and free of one page through the per-CPU list, half full, {_GUEST}",
        at_most=15,
        compared_to=_llfree(53.5, "get and put of one page, half full"),
    ),
    Series(
        name="alloc.order9_pair_ns",
        unit="ns",
        measure=f"{_HERE}.alloc:measure_pairs",
        how=f"allocation and free of 2 MiB through the per-CPU list, half full, {_GUEST}",
        at_most=60,
        compared_to=_llfree(50.6, "get and put of 2 MiB"),
    ),
    _churn(50, 268),
    _churn(70, 298),
    _churn(90, 325),
    Series(
        name="alloc.remote_free_ns",
        unit="ns",
        measure=f"{_HERE}.remote_free_process:measure_remote_free",
        how="two pinned processes have allocated half of 8 GiB; all of it is shuffled and each "
        "frees half: time of the slower one per page that it frees",
        at_most=124,
        compared_to=_llfree(124, "shuffled put, CPUs far apart (near: 45.9), 2 threads"),
    ),
    Series(
        name="guest.init_80gib_ms",
        unit="ms",
        measure=f"{_HERE}.boot:measure_boot",
        how="bringing up the memory management of 80 GiB in a new segment of shared memory until "
        "all of it can be allocated, page faults included; most page records are written after it",
        at_most=20,
        compared_to=_llfree(1.07, "initialisation of 80 GiB on fresh memory (resident: 0.19)"),
    ),
    Series(
        name="guest.metadata_bytes_per_page",
        unit="bytes/page",
        measure=f"{_HERE}.boot:measure_boot",
        how="pages, pageblocks, zones and per-CPU lists of a guest of 80 GiB",
        at_most=16,
        compared_to=_llfree(0.1416, "80 GiB, all metadata, without any record a page"),
    ),
    Series(
        name="reclaim.ratio_to_raw",
        unit="ratio",
        measure=f"{_HERE}.reclaim_task:measure_reclaim",
        how="bytes/s from hinting task through ring and host process, over a bare loop of the same "
        "fallocate calls on the same ranges, taken in turns; all resident before",
        at_least=0.9,
    ),
    Series(
        name="hinting.page_fault1_ratio",
        unit="ratio",
        measure=f"{_HERE}.hinting:measure_page_fault1",
        how="pages/s of scenario page_fault1 under page_reporting over off, paired, in turns",
        at_least=0.98,
        compared_to=Compared(
            "Linux page reporting", 0.992, "page_fault1, 16 tasks; cover letter of v17, Xeon E5"
        ),
    ),
    Series(
        name="replay.events_per_s",
        unit="events/s",
        measure=f"{_HERE}.replay:measure_replay",
        how="events applied by a whole run in virtual time, speed 0, over its wall time without "
        "reading the trace",
        at_least=10e6,
    ),
    Series(
        name="replay.parse_lines_per_s",
        unit="lines/s",
        measure=f"{_HERE}.replay:measure_replay",
        how="plain ftrace text in a file -> events",
        at_least=2e6,
        compared_to=Compared("plain Python", 214e3, "one regular expression a line"),
    ),
    Series(
        name="vhost_user.report_overhead_us",
        unit="us",
        measure=f"{_HERE}.vhost_user_task:measure_report",
        how="from kick to acknowledgement of a report of 32 blocks of 4 MiB, none adjacent, over "
        "vhost-user, both halves tasks of one process; less a bare loop of the same discards",
        at_most=200,
    ),
    Series(
        name="vhost_user.idle_cpu_percent",
        unit="%",
        measure=f"{_HERE}.vhost_user_task:measure_idle",
        how="CPU time of `python -m emulator vhost-user`, samples included, while a guest is "
        "attached that has done nothing for 5 s; percent of one CPU over 20 s",
        at_most=0.05,
    ),
    *(
        Series(name=f"kvm.{name}", unit=unit, measure=f"{_HERE}.kvm:measure_kvm", how=how)
        for name, unit, how in (
            (
                "flushes_per_discard",
                "flushes",
                f"how often a vCPU that runs is interrupted, {_KVM}, by what it sees itself",
            ),
            ("exits_per_discard", "exits", f"the same by KVM's counter of the vCPU, {_KVM}"),
            ("ipis_per_discard", "interrupts", f"the same by the system's function calls, {_KVM}"),
            ("interrupted_us_per_discard", "us", f"time that the vCPU loses, {_KVM}"),
            ("discard_us", "us", f"time of the system call, {_KVM}"),
            ("discard_stopped_us", "us", "the same after the guest has touched it and stopped"),
            ("fault_us", "us", "the guest's first touch of 4 KiB, over that of a later one"),
            ("exit_us", "us", "a notification by the guest: a port, an eventfd, and on it goes"),
        )
    ),
    Series(
        name="start.warm_s",
        unit="s",
        measure=f"{_HERE}.commands:measure_warm_start",
        how="from starting `python -m emulator scenario` to its log saying `running`, plus the "
        "summary's start of the first phase: the first page is allocated then",
        at_most=2,
    ),
    Series(
        name="start.cold_s",
        unit="s",
        measure=f"{_HERE}.commands:measure_cold_start",
        how="the same with an empty cache of compiled kernels",
        at_most=25,
    ),
    Series(
        name="memory.memhog_80gib_s",
        unit="s",
        measure=f"{_HERE}.commands:measure_memhog",
        how="`python -m emulator scenario memhog --memory 80GiB`, accounted RAM, fraction 79/80: "
        "from start to exit, its two rests of 10 s included",
        at_most=60,
    ),
    Series(
        name="memory.memhog_80gib_peak_bytes",
        unit="bytes",
        measure=f"{_HERE}.commands:measure_memhog",
        how="the same: the largest sum of PSS over all its processes, looked at 4 times a second",
        at_most=1.5 * (1 << 30),
    ),
)


def select(names: Iterable[str]) -> list[Series]:
    """The series whose name starts with one of `names`, in their order; all without any.

    Raises ConfigError for a name that no series starts with.
    """
    wanted = list(names)
    known = [series.name for series in SERIES]
    for name in wanted:
        if not any(one.startswith(name) for one in known):
            raise ConfigError(f"bench: no series begins with {name!r}{suggest(name, known)}")
    return [one for one in SERIES if not wanted or one.name.startswith(tuple(wanted))]
