"""Runs a scenario in a real Linux guest, whose balloon is ours."""

import tempfile
from pathlib import Path
from typing import Final

import msgspec
import trio

from devices.balloon.features import feature_bits
from devices.vhost_user.socket_file import SocketFile
from emulator.config.scenario import Scenario
from emulator.errors import ConfigError, MachineLacks, RunFailed
from emulator.guest.hinting.mechanisms.page_reporting import PageReporting
from emulator.host.rehearsal import rehearse
from emulator.launch.failure import first_cause
from emulator.machine_parts import load_parts
from emulator.observer import Observer
from emulator.run_folder import REPORTS
from emulator.serve.pace import Pace
from emulator.serve.record import Record
from emulator.serve.report_log import ReportLog
from emulator.serve.service_task import FEATURES_DEFAULT, Service
from emulator.summary import CostFigures, OracleFigures, Summary
from emulator.uml.guest_process import UmlGuest, run_guest
from emulator.uml.memhog_task import MemhogRun
from emulator.uml.packages import Packages
from emulator.workloads.uml_memhog import UmlMemhog

_STATS_EVERY_S: Final = 1.0
_STEP_S_MAX: Final = 120.0  # Of filling, freeing, booting: each takes a few seconds at most.
_REPORTING: Final = "page_reporting"


def run_uml(scenario: Scenario, *, output: Path, observer: Observer) -> Summary:
    """Run a scenario of workload `uml_memhog` to its end; see `observe_uml`."""
    summary, _ = observe_uml(scenario, output=output, observer=observer)
    return summary


def observe_uml(
    scenario: Scenario, *, output: Path, observer: Observer
) -> tuple[Summary, MemhogRun]:
    """Run it, and say also what was seen; `reports.csv` is written to `output`.

    Raises ConfigError for what no real guest can do, MachineLacks that names the packages to
    install, RunFailed if the guest ended or took too long.
    """
    workload, features, parameters = _asked_of_linux(scenario)
    packages = Packages.find()
    try:
        return trio.run(
            _run,
            scenario,
            workload,
            packages,
            features,
            parameters,
            output,
            observer,
            restrict_keyboard_interrupt_to_checkpoints=True,
        )
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


def _asked_of_linux(scenario: Scenario) -> tuple[UmlMemhog, int, tuple[str, ...]]:
    """The workload, the features to offer and the kernel's parameters.

    Raises ConfigError for what a real Linux cannot be asked.
    """
    mechanism, workload = load_parts(scenario)
    guest, mechanism_at = scenario.guest, scenario.where("mechanism")
    if scenario.run.launcher != "uml":
        raise ConfigError(f'{scenario.where("run")}.launcher: a real Linux guest needs "uml"')
    if not isinstance(workload, UmlMemhog):
        where = scenario.where("workload")
        raise ConfigError(f"{where}.kind: a real Linux guest can run uml_memhog only")
    if guest.vcpus != 1 or guest.ram != "memfd" or guest.zones:
        raise ConfigError(
            f"{scenario.where('guest')}: User-Mode Linux has 1 vCPU, real pages and zones of its "
            f'own; use vcpus = 1, ram = "memfd" and no zones'
        )
    offered = [name for name in FEATURES_DEFAULT if name != _REPORTING]
    if mechanism.name == "off":
        return workload, feature_bits(offered), ()
    if not isinstance(mechanism, PageReporting):
        raise ConfigError(f"{mechanism_at}.name: a real Linux guest has page_reporting, or off")
    if mechanism != PageReporting(order=mechanism.order):
        raise ConfigError(f"{mechanism_at}: in a real Linux guest only the order can be chosen")
    order = mechanism.order
    parameters = () if order is None else (f"page_reporting.page_reporting_order={order}",)
    return workload, feature_bits((*offered, _REPORTING)), parameters


async def _run(
    scenario: Scenario,
    workload: UmlMemhog,
    packages: Packages,
    features: int,
    parameters: tuple[str, ...],
    output: Path,
    observer: Observer,
) -> tuple[Summary, MemhogRun]:
    began_s = trio.current_time()
    usual_s = workload.delay_s + workload.iterations * (workload.idle_s + _STEP_S_MAX)
    limit_s = scenario.run.time_limit_s or usual_s + 2 * _STEP_S_MAX
    with ReportLog(output / REPORTS) as log, _PrivateSocket() as socket_file:
        record = Record(features=features, stats_pace=Pace(_STATS_EVERY_S), log=log)
        rehearse()
        service = Service(
            record,
            observer,
            pace=Pace(scenario.run.sample_s),
            say_target=observer.event,
        )
        hog = MemhogRun(workload, service, observer)
        with trio.move_on_after(limit_s) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.run, socket_file)
                async with run_guest(
                    packages,
                    memory_bytes=scenario.guest.memory_bytes,
                    socket=socket_file.path,
                    parameters=parameters,
                ) as guest:
                    observer.phase(f"booting Linux {packages.release}")
                    await _live(guest, hog)
                await service.left.wait()
    if limit.cancelled_caught:
        raise RunFailed(f"the guest took longer than {limit_s:g} s (run.time_limit)")
    if service.reason is not None:
        raise RunFailed(f"the guest's device was taken away: {service.reason}")
    summary = Summary(
        scenario=scenario.name,
        mechanism=scenario.mechanism.name,
        launcher=scenario.run.launcher,
        seed=scenario.run.seed,
        wall_s=trio.current_time() - began_s,
        guest=msgspec.structs.replace(record.guest_figures(), vcpus=scenario.guest.vcpus),
        host=record.host_figures(),
        hinting=record.hinting_figures(hog.latency_ms()),
        cost=CostFigures(),
        oracle=OracleFigures(pages_checked=hog.pages_checked, violations=hog.violations),
        workload=hog.figures(),
        phases=hog.phases(),
    )
    return summary, hog


async def _live(guest: UmlGuest, hog: MemhogRun) -> None:
    await hog.run(guest)
    await guest.power_off()


class _PrivateSocket(SocketFile):
    """A socket in a folder of its own, which goes with it.

    Raises MachineLacks if a kernel's command line could not name it.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="emulator-")
        path = Path(self._folder.name) / "balloon"
        try:
            if set(str(path)) & set(" :,\"'"):
                raise ValueError("no kernel's parameter can name it")
            super().__init__(path)
        except (OSError, ValueError) as error:
            self._folder.cleanup()
            raise MachineLacks(
                f"no socket for the guest at {path}: {error}; change TMPDIR"
            ) from None

    def close(self) -> None:
        """Remove both; once is enough."""
        super().close()
        self._folder.cleanup()
