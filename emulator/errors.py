"""What a user is told in one line, and the exit code that goes with it.

Whoever notices raises; only `emulator.commands.application` turns these into text and exit codes.
A message is one line: it names the thing that is wrong and says what would work.
"""


class ConfigError(ValueError):
    """Usage or input that cannot be: an unknown key, a bad value, a damaged file.  Exit code 2."""


class MechanismFailed(ConfigError):
    """A user's own mechanism does not work: the message names its file, line and reason."""


class MachineLacks(RuntimeError):
    """This machine lacks something the run needs; the message holds the remedy.  Exit code 3."""


class RunFailed(RuntimeError):
    """The run began and did not end as it should: a process died, a limit passed.  Exit code 1."""
