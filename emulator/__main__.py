"""`python -m emulator`."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Until there is somebody to say it in one line.

from emulator.commands.application import main  # noqa: E402

if __name__ == "__main__":
    main()
