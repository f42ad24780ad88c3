"""Whether a real Linux guest can be had here."""

import pytest

from emulator.errors import MachineLacks
from emulator.uml.packages import Packages


def _lacking() -> str:
    try:
        Packages.find()
    except MachineLacks as error:
        return str(error)
    return ""


_WHY = _lacking()
needs_uml = pytest.mark.skipif(bool(_WHY), reason=_WHY)
