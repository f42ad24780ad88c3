"""Mappings of files that another process may shrink: it loses the memory, we go on.

A touch of a mapped page that lies behind the end of its file raises SIGBUS, and checking the size
first cannot prevent it: whoever else has the file open may shrink it at any time (unless it is
sealed against that, which its owner alone can do).  Here the signal's handler maps zeroed anonymous
memory over the whole *guarded* mapping in which the fault lies, marks it as lost, and returns; the
touch is repeated and finds zeroes.  The owner of the mapping asks `lost` whenever it suits.  A
SIGBUS anywhere else goes to whatever handled it before, as if we were not there.

The handler may interrupt a compiled kernel or numpy anywhere, so that it must not enter Python: it
is compiled, and calls nothing but mmap(2) and sigaction(2).  It runs on the faulting thread.

    _table     row of each guarded mapping   written by `Guard`; `lost` by the handler
"""

import ctypes
import errno
import mmap
import signal
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.extending import intrinsic

GUARDS_MAX: Final = 1024

_GUARDED: Final = np.dtype([("start", "<i8"), ("end", "<i8"), ("lost", "<i8")])
_SI_ADDR_WORD: Final = 2  # siginfo_t: three ints, padding, then the address (64-bit Linux).
_SA_SIGINFO: Final = 4
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000

_libc: Final = ctypes.CDLL(None, use_errno=True)
_table: Final = np.zeros(GUARDS_MAX, dtype=_GUARDED)  # A row is free while its `end` is 0.


class _SigAction(ctypes.Structure):
    """`struct sigaction` of glibc and musl, x86-64 and arm64."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint8 * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_before: Final = _SigAction()  # What handled the signal before us.
_handler: Any = None  # Keeps the machine code alive.


class Guard:
    """Guards `size_bytes` mapped at `address`, until `release`: before they are unmapped.

    OSError once GUARDS_MAX mappings are guarded, or if the system refuses the handler.
    """

    def __init__(self, address: int, size_bytes: int) -> None:
        install()
        free = np.flatnonzero(_table["end"] == 0)
        if not len(free):
            raise OSError(errno.ENOMEM, f"more than {GUARDS_MAX} foreign mappings")
        self._row = int(free[0])
        _table[self._row] = (address, address + size_bytes, 0)

    @property
    def lost(self) -> bool:
        """Whether the file shrank under the mapping and a touch found it out."""
        return bool(_table[self._row]["lost"])

    def release(self) -> None:
        """No longer guard it; the mapping is about to go."""
        _table[self._row]["end"] = 0


def install() -> None:
    """Make ours the handler of SIGBUS, unless it is; `Guard` does so, too.

    The first time takes a third of a second, for it is compiled: some would rather not wait then.
    """
    global _handler
    if _handler is None:
        _handler = _compile()
    present = _SigAction()
    _sigaction(None, present)
    if present.handler == _handler.address:
        return
    ctypes.memmove(ctypes.byref(_before), ctypes.byref(present), ctypes.sizeof(present))
    ours = _SigAction(handler=_handler.address, flags=_SA_SIGINFO)
    _sigaction(ours, None)


def _sigaction(new: _SigAction | None, old: _SigAction | None) -> None:
    refused = _libc.sigaction(
        int(signal.SIGBUS),
        None if new is None else ctypes.byref(new),
        None if old is None else ctypes.byref(old),
    )
    if refused:
        raise OSError(ctypes.get_errno(), "the handler of SIGBUS was refused")


def _load(typingctx: Any, address: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), codegen


def _store(typingctx: Any, address: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], ir.IntType(64).as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


_word_at: Any = intrinsic(_load)
_set_word_at: Any = intrinsic(_store)


def _compile() -> Any:
    """The handler, as machine code that knows where the table lies in this process."""
    table = int(_table.ctypes.data)
    before = int(ctypes.addressof(_before))
    sigbus = int(signal.SIGBUS)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
    map_over: Any = types.ExternalFunction(
        "mmap",
        types.int64(types.int64, types.int64, types.int32, types.int32, types.int32, types.int64),
    )
    restore: Any = types.ExternalFunction(
        "sigaction", types.int32(types.int32, types.int64, types.int64)
    )

    def on_bus_error(number: Any, info: Any, context: Any) -> None:
        address = _word_at(info + 8 * _SI_ADDR_WORD)
        for i in range(GUARDS_MAX):
            row = table + 24 * i
            start, end = _word_at(row), _word_at(row + 8)
            if start <= address < end:
                if map_over(start, end - start, protection, flags, -1, 0) == start:
                    _set_word_at(row + 16, 1)
                    return
        restore(sigbus, before, 0)  # The fault repeats, and is theirs.

    signature = types.void(types.int32, types.int64, types.int64)
    return numba.cfunc(signature, nopython=True, error_model="numpy", _nrt=False)(on_bus_error)


assert _GUARDED.itemsize == 24
