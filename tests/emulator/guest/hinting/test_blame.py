"""What is said of an error in a user's own mechanism: file, line and reason."""

import runpy
from pathlib import Path

import pytest

from emulator.guest.hinting.blame import blame

SOURCE = """class Mine:
    def step(self):
        return self.deeper()

    def deeper(self):
        raise ValueError("no good\\nat all")


def freed(mm):
    return nothing
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def raised_in(own: Path) -> Exception:
    with pytest.raises(ValueError) as raised:
        runpy.run_path(str(own))["Mine"]().step()
    return raised.value


def test_the_innermost_line_of_the_file_and_one_line_of_reason(own: Path) -> None:
    assert blame(own, raised_in(own)) == f"{own}, line 6: ValueError: no good"


def test_groups_and_other_processes_do_not_hide_it(own: Path) -> None:
    error = raised_in(own)
    group = ExceptionGroup("tasks", [ExceptionGroup("more", [error])])
    assert blame(own, group) == f"{own}, line 6: ValueError: no good"
    told = RuntimeError("the guest kernel failed")
    told.add_note(f'  File "{own}", line 6, in deeper\nValueError: no good')
    assert blame(own, told) == f"{own}, line 6: RuntimeError: the guest kernel failed"


def test_an_error_from_elsewhere_is_not_blamed_on_it(own: Path) -> None:
    assert blame(own, ValueError("mine")) is None
    assert blame(own.with_name("other.py"), raised_in(own)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Failed in nopython mode pipeline (step: nopython frontend)\n"
            "    Failed in nopython mode pipeline (step: nopython frontend)\n"
            "  NameError: name 'nothing' is not defined\n"
            "  During: resolving callee type: type(CPUDispatcher(<function freed at 0x7f1>))\n"
            "  raised from numba/core/typeinfer.py:1083",
            "line 9: NameError: name 'nothing' is not defined",
        ),
        (
            "Failed in nopython mode pipeline (step: nopython frontend)\n"
            "Unknown attribute 'nosuch' of type GuestMemory(" + "x" * 400 + ")\n\n"
            'File "../mine.py", line 10:\n numba/core/',
            "line 10: Unknown attribute 'nosuch' of type GuestMemory(",
        ),
        ("'nosuch', says numba/core/types", "line 1: its kernels do not compile: KeyError: "),
    ],
)
def test_what_the_compiler_says_is_cut_to_the_reason(own: Path, text: str, expected: str) -> None:
    found = blame(own, KeyError(text) if text[0] == "'" else TypeError(text))
    assert found is not None
    assert found.startswith(f"{own}, {expected}")
    assert "\n" not in found and len(found) < 260 + len(str(own))
