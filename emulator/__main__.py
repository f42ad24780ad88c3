"""`python -m emulator`."""

from emulator.commands.application import main

if __name__ == "__main__":
    main()
