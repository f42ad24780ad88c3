"""What a real Linux cannot be asked is refused before anything is started."""

from pathlib import Path

import pytest

from emulator.config.scenario import load_scenario
from emulator.errors import ConfigError
from emulator.observer import NullObserver
from emulator.uml.run_task import run_uml


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (['run.launcher="virtual"'], r"run\.launcher: a real Linux guest needs"),
        (['workload={kind="memhog"}'], r"workload\.kind: a real Linux guest can run uml_memhog"),
        (["guest.vcpus=2"], "1 vCPU"),
        (['guest.ram="accounted"'], "real pages"),
        (['mechanism.name="bitmap"'], r"mechanism\.name: a real Linux guest has page_reporting"),
        (['mechanism.delay="1s"'], "only the order can be chosen"),
        (["mechanism.capacity=16"], "only the order can be chosen"),
    ],
)
def test_it_is_refused(tmp_path: Path, settings: list[str], says: str) -> None:
    scenario = load_scenario("uml_memhog", settings)
    with pytest.raises(ConfigError, match=says):
        run_uml(scenario, output=tmp_path, observer=NullObserver())
    assert list(tmp_path.iterdir()) == []
