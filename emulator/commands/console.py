"""The console that results are printed on; rich is imported with it, so import it late."""

from rich.console import Console


class ResultConsole(Console):
    """Standard output; honours `NO_COLOR`."""

    def on_broken_pipe(self) -> None:
        """Say so, where rich would end the program with the code of a failed run."""
        raise BrokenPipeError
