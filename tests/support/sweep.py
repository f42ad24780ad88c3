"""Several scenarios in real processes, one after the other, from one fork server.

A process has one fork server, and what it has not loaded each child loads for itself; so a test of
several mechanisms runs this in a process of its own: `python -m tests.support.sweep`, scenarios as
a JSON list of TOML on standard input, a line of JSON for each on standard output.
"""

import json
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from emulator.config.scenario import decode_scenario
from emulator.errors import RunFailed
from emulator.launch.fork_server import start_fork_server
from emulator.launch.preload import rehearse
from emulator.observer import NullObserver
from emulator.summary import to_json


def main() -> None:
    """Run them all; a run that fails is a line with "failed"."""
    scenarios = [
        decode_scenario(tomllib.loads(text), name="sweep", source="sweep")
        for text in json.load(sys.stdin)
    ]
    for scenario in scenarios:
        rehearse(scenario)  # Compiled here, however long that takes, and then only loaded there.
    start_fork_server(*scenarios)
    from emulator.runner import run

    with TemporaryDirectory() as folder:
        for scenario in scenarios:
            try:
                summary = run(scenario, output=Path(folder), observer=NullObserver())
                print(json.dumps(json.loads(to_json(summary))), flush=True)
            except RunFailed as error:
                print(json.dumps({"failed": str(error)}), flush=True)


if __name__ == "__main__":
    main()
