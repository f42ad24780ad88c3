"""Serves a guest that somebody else runs, from its attaching to its leaving, into a run folder."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import trio

from devices.balloon.features import FEATURES, feature_bits
from devices.vhost_user.socket_file import SocketFile
from emulator.config.guest import LARGEST_BLOCK_BYTES, GuestConfig
from emulator.config.parameters import suggest
from emulator.config.scenario import MechanismConfig, RunConfig, Scenario, WorkloadConfig
from emulator.errors import ConfigError, RunFailed
from emulator.host.rehearsal import rehearse
from emulator.launch.failure import first_cause
from emulator.report.html import write_report
from emulator.report.live import View
from emulator.run_folder import REPORT, REPORTS, RunFolder
from emulator.serve.control_task import serve_control
from emulator.serve.pace import Pace
from emulator.serve.record import Record
from emulator.serve.report_log import ReportLog
from emulator.serve.service_task import FEATURES_DEFAULT, Service
from emulator.summary import Summary
from emulator.thinned_rows import ThinnedRows

_NAME: Final = "vhost-user"
_SAMPLE_S: Final = 0.25
_SAMPLE_IDLE_S: Final = 2.0  # Where nothing changes for long, looking is all that is done.
_STATS_EVERY_S: Final = 1.0
_STATS_IDLE_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for.

    target_bytes:  that the guest may have; None: all it has
    features:      names of `devices.balloon.features.FEATURES`; none: the usual ones
    """

    path: Path
    target_bytes: int | None = None
    features: tuple[str, ...] = ()
    any_user: bool = False

    def __post_init__(self) -> None:
        for name in self.features:
            if name not in FEATURES:
                raise ConfigError(f"--feature: no feature {name!r}{suggest(name, FEATURES)}")

    @property
    def offered(self) -> tuple[str, ...]:
        """The features by name."""
        return self.features or FEATURES_DEFAULT

    @property
    def control_path(self) -> Path:
        """Where commands are taken."""
        return self.path.with_name(self.path.name + ".control")


def serve(plan: Plan, folder: RunFolder, view: View) -> tuple[Scenario, Summary]:
    """Serve one guest; everything is written to `folder`, which goes if no guest came.

    Raises ConfigError if a socket cannot be made, RunFailed if the guest's front-end broke the
    protocol.  Also then, and if it is interrupted, the folder is whole: the guest was served so
    far.
    """
    started = datetime.now(UTC)
    record: Record | None = None
    try:
        rehearse()
        with (
            ReportLog(folder.path / REPORTS) as log,
            folder.recording(view, ThinnedRows()) as recorder,
            _listening(plan.path, any_user=plan.any_user) as socket_file,
            _listening(plan.control_path) as control_file,
        ):
            record = Record(
                features=feature_bits(plan.offered),
                stats_pace=Pace(_STATS_EVERY_S, _STATS_IDLE_S),
                log=log,
            )
            record.balloon.set_target(plan.target_bytes)
            pace = Pace(_SAMPLE_S, _SAMPLE_IDLE_S)
            service = Service(
                record, recorder, pace=pace, any_user=plan.any_user, details=view.details
            )
            recorder.phase(f"waiting for a guest at {plan.path}")
            try:
                trio.run(
                    partial(_run, service, socket_file, control_file),
                    restrict_keyboard_interrupt_to_checkpoints=True,
                )
            except BaseExceptionGroup as group:
                raise first_cause(group) from None
            if service.reason is not None:
                raise RunFailed(f"the guest's front-end: {service.reason}")
    except BaseException:
        if record is not None and record.attached:
            _complete(plan, record, folder, started)
        else:
            folder.discard()
        raise
    return _complete(plan, record, folder, started)


def _complete(
    plan: Plan, record: Record, folder: RunFolder, started: datetime
) -> tuple[Scenario, Summary]:
    """Write what is written when a guest has left."""
    scenario, summary = _scenario(plan, record), _summary(plan, record)
    folder.write_scenario(scenario)
    folder.write_manifest(seed=scenario.run.seed, started=started)
    folder.write_summary(summary)
    write_report([folder], folder.path / REPORT)
    return scenario, summary


def _listening(path: Path, *, any_user: bool = False) -> SocketFile:
    try:
        return SocketFile(path, any_user=any_user)
    except (OSError, ValueError) as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"--socket: {path}: cannot be listened on: {text}") from None


async def _run(service: Service, socket_file: SocketFile, control_file: SocketFile) -> None:
    async with trio.open_nursery() as nursery:
        control = partial(
            serve_control, set_target=service.set_target, status=service.record.status
        )
        nursery.start_soon(control, control_file)
        await service.run(socket_file)
        nursery.cancel_scope.cancel()


def _scenario(plan: Plan, record: Record) -> Scenario:
    """What was served, in the form that all run folders have; the guest's load was its own."""
    memory_bytes = record.memory_bytes or LARGEST_BLOCK_BYTES
    blocks = -(-memory_bytes // LARGEST_BLOCK_BYTES)
    reporting = "page_reporting" in plan.offered
    return Scenario(
        question=f"What did the guest at {plan.path} give back?",
        name=_NAME,
        guest=GuestConfig(memory_bytes=blocks * LARGEST_BLOCK_BYTES, vcpus=1),
        mechanism=MechanismConfig(name="page_reporting" if reporting else "off"),
        workload=WorkloadConfig(kind=_NAME, parameters={"features": ",".join(plan.offered)}),
        run=RunConfig(sample_s=_SAMPLE_S),
    )


def _summary(plan: Plan, record: Record) -> Summary:
    target_bytes = record.balloon.target_bytes
    if target_bytes is None:  # All is the guest's.
        target_bytes = record.memory_bytes
    return Summary(
        scenario=_NAME,
        mechanism="page_reporting" if "page_reporting" in plan.offered else "off",
        launcher=_NAME,
        seed=RunConfig().seed,
        wall_s=record.rows[-1].time_s if record.rows else None,
        guest=record.guest_figures(),
        host=record.host_figures(),
        hinting=record.hinting_figures(),
        workload={"target_bytes": target_bytes, **record.figures},
    )
