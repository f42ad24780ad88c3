"""page_fault1's figure is of what came after the warm-up, the sum over the vCPUs."""

import numpy as np
import pytest

from emulator.errors import ConfigError
from emulator.workloads.layout import FAULT_PROGRESS
from emulator.workloads.page_fault1 import PageFault1
from emulator.workloads.registry import load_workload
from emulator.workloads.workload import Outcome
from tests.support.runs import simulate, small

OUTCOME = Outcome(vcpus=2, pages_touched=10**9, operations=0, violations=0, elapsed_s=100.0)


def test_each_vcpu_counts_for_its_own_time() -> None:
    progress = np.array([(1000, 2.0), (3000, 3.0)], FAULT_PROGRESS)
    assert PageFault1().figures(OUTCOME, {"progress": progress}) == {
        "pages_per_s": 1500.0,
        "pages_per_s_per_vcpu": 750.0,
    }


def test_a_vcpu_that_was_lost_while_warming_up_counts_for_nothing() -> None:
    progress = np.array([(1000, 2.0), (0, 0.0)], FAULT_PROGRESS)
    assert PageFault1().figures(OUTCOME, {"progress": progress})["pages_per_s"] == 500.0
    nobody = {"progress": np.zeros(2, FAULT_PROGRESS)}
    assert PageFault1().figures(OUTCOME, nobody)["pages_per_s"] is None


def test_the_warm_up_is_a_phase_before() -> None:
    run = simulate(small("page_fault1", 'workload.warm_up="300ms"', 'workload.duration="200ms"'))
    lengths = {phase.name: phase.end_s - phase.start_s for phase in run.summary.phases}
    assert list(lengths) == ["warm up", "page_fault1"]
    assert lengths["warm up"] == pytest.approx(0.3, abs=0.02)
    assert lengths["page_fault1"] == pytest.approx(0.2, abs=0.02)
    assert run.summary.workload["pages_per_s_per_vcpu"] == pytest.approx(2**19, rel=0.02)


def test_a_warm_up_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        load_workload("page_fault1", {"warm_up": "-1s"}, where="workload")
