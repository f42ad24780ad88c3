"""Whether a real Linux guest can be had here."""

import os
from typing import Final

import pytest

from emulator.errors import MachineLacks
from emulator.uml.packages import Packages

# Set where the packages must be there: a test then fails where it would be skipped.
_REQUIRED: Final = os.environ.get("EMULATOR_TEST_UML") == "required"


def _lacking() -> str:
    try:
        Packages.find()
    except MachineLacks as error:
        return str(error)
    return ""


_WHY: Final = _lacking()
needs_uml: Final = pytest.mark.skipif(bool(_WHY) and not _REQUIRED, reason=_WHY)
