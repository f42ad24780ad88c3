"""Finds what in a user's own mechanism an error comes from: the file, the line and the reason.

An error passes through the allocator's kernels, numba's compiler, trio's groups and other
processes; what is left of it everywhere is its text, and that is what is searched.
"""

import ast
import re
import traceback
from pathlib import Path
from typing import Final

_COMPILING: Final = "Failed in nopython mode pipeline"
_COMPILER: Final = "numba/core/"
_REASON_CHARACTERS_MAX: Final = 200


def blame(path: Path, error: BaseException) -> str | None:
    """`FILE, line N: REASON` if the error comes from the mechanism in `path`, else None."""
    text = "".join(traceback.format_exception(error))
    line = _line_of(path, text)
    if line is None:
        return None
    return f"{path}, line {line}: {_reason(error, text)}"


def _line_of(path: Path, text: str) -> int | None:
    """The last line of the file that the text names, or of a kernel of it that it names, or of
    the first class where the compiler failed without saying over what."""
    named = re.findall(rf'File "[^"]*{re.escape(path.name)}", line (\d+)', text)
    if named:
        return int(named[-1])
    if _COMPILER not in text:
        return None
    nodes = ast.parse(path.read_bytes()).body
    kernels = {node.name: node.lineno for node in nodes if isinstance(node, ast.FunctionDef)}
    for name in re.findall(r"<function (\w+) at 0x", text):
        if name in kernels:
            return kernels[name]
    return min((node.lineno for node in nodes if isinstance(node, ast.ClassDef)), default=1)


def _reason(error: BaseException, text: str) -> str:
    leaf = error
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    words = next(iter(str(leaf).strip().splitlines()), "")
    reason = f"{type(leaf).__name__}: {words}" if words else type(leaf).__name__
    if _COMPILING in text:  # What is wrong is said after the last of these.
        after = text.rpartition(_COMPILING)[2].splitlines()[1:]
        said = (line.strip(" |") for line in after)  # A group has a bar before each line.
        reason = next(filter(None, said), reason)
    elif _COMPILER in text:
        reason = f"its kernels do not compile: {reason}"
    cut = len(reason) > _REASON_CHARACTERS_MAX
    return f"{reason[:_REASON_CHARACTERS_MAX]}..." if cut else reason
