"""Atomic operations on shared words, for kernels in several processes.

Every function takes `(records, index, field)`: a one-dimensional structured array, an index into
it, and the literal name of a 2-, 4- or 8-byte unsigned integer field.  The ordering is in the
name, as in C11.  Uncompiled (`NUMBA_DISABLE_JIT=1`) the plain twins below run: then one process
must be alone with the memory.

    load_acquire, load_relaxed          -> value
    store_release, store_relaxed        -> nothing
    exchange                            -> old value      (acquire and release)
    compare_exchange                    -> old value      (acquire and release)
    fetch_add                           -> old value      (acquire and release)
    fence                               full barrier
    pause                               tell the core that we spin
    prefetch_write(records, index)      a hint: we shall write that record; any index is harmless
    futex_wait, futex_wake              sleep on, and wake sleepers of, a 4-byte word
    monotonic_ns                        CLOCK_MONOTONIC

numba has no compare-and-swap on the CPU; these are its `intrinsic`s over LLVM's instructions.
"""

import platform
import time
from typing import Any, Final

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.extending import intrinsic
from numba.np.arrayobj import make_array

from devices.memory.jit import interpreted

_FUTEX_WAIT: Final = 0  # Not the private form: the sleepers are in other processes.
_FUTEX_WAKE: Final = 1
_SYS_FUTEX: Final = {"x86_64": 202, "aarch64": 98}[platform.machine()]


def _member(records: Any, field: Any) -> tuple[int, Any]:
    """Offset in bytes and numba type of a record's field; a clear error for anything else."""
    if not (isinstance(records, types.Array) and isinstance(records.dtype, types.Record)):
        raise TypeError("an atomic needs a structured array, an index and a field's literal name")
    record = records.dtype
    member = record.typeof(field)
    if not (isinstance(member, types.Integer) and member.bitwidth in (8, 16, 32, 64)):
        raise TypeError(f"field {field!r} is not an integer of 1, 2, 4 or 8 bytes")
    offset = record.offset(field)
    if offset % (member.bitwidth // 8):
        raise TypeError(f"field {field!r} is not naturally aligned")
    return offset, member


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Address of `records[index]`, as a 64-bit integer."""
    array = make_array(sig.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    stride = cgutils.unpack_tuple(builder, array.strides, 1)[0]
    base = builder.ptrtoint(array.data, ir.IntType(64))
    return builder.add(base, builder.mul(index, stride))


def _pointer(context: Any, builder: Any, sig: Any, args: Any, field: str) -> Any:
    """Address of `records[index][field]`, as an integer pointer of the field's width."""
    offset, member = _member(sig.args[0], field)
    address = _address(context, builder, sig, args)
    address = builder.add(address, ir.Constant(ir.IntType(64), offset))
    return builder.inttoptr(address, ir.IntType(member.bitwidth).as_pointer())


def _load(ordering: str) -> Any:
    def typed(typingctx: Any, records: Any, index: Any, field: Any) -> Any:
        name = field.literal_value
        _, member = _member(records, name)
        sig = member(records, index, field)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig, args, name)
            return builder.load_atomic(pointer, ordering, member.bitwidth // 8)

        return sig, codegen

    return intrinsic(prefer_literal=True)(typed)


def _store(ordering: str) -> Any:
    def typed(typingctx: Any, records: Any, index: Any, field: Any, value: Any) -> Any:
        name = field.literal_value
        _, member = _member(records, name)
        sig = types.void(records, index, field, types.unliteral(value))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig, args, name)
            new = context.cast(builder, args[3], sig.args[3], member)
            builder.store_atomic(new, pointer, ordering, member.bitwidth // 8)
            return context.get_dummy_value()

        return sig, codegen

    return intrinsic(prefer_literal=True)(typed)


def _read_modify_write(operation: str) -> Any:
    def typed(typingctx: Any, records: Any, index: Any, field: Any, value: Any) -> Any:
        name = field.literal_value
        _, member = _member(records, name)
        sig = member(records, index, field, types.unliteral(value))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig, args, name)
            operand = context.cast(builder, args[3], sig.args[3], member)
            return builder.atomic_rmw(operation, pointer, operand, "acq_rel")

        return sig, codegen

    return intrinsic(prefer_literal=True)(typed)


def _cmpxchg() -> Any:
    def typed(typingctx: Any, records: Any, index: Any, field: Any, expected: Any, new: Any) -> Any:
        name = field.literal_value
        _, member = _member(records, name)
        sig = member(records, index, field, types.unliteral(expected), types.unliteral(new))

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig, args, name)
            old = context.cast(builder, args[3], sig.args[3], member)
            wanted = context.cast(builder, args[4], sig.args[4], member)
            pair = builder.cmpxchg(pointer, old, wanted, "acq_rel", "acquire")
            return builder.extract_value(pair, 0)

        return sig, codegen

    return intrinsic(prefer_literal=True)(typed)


@intrinsic
def _fence(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def _pause(typingctx: Any) -> Any:
    """Inline assembly would abort a process that loads it from the cache; intrinsics do not."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if platform.machine() == "x86_64":
            function_type = ir.FunctionType(ir.VoidType(), [])
            builder.call(
                cgutils.get_or_insert_function(
                    builder.module, function_type, "llvm.x86.sse2.pause"
                ),
                [],
            )
        else:
            function_type = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            builder.call(
                cgutils.get_or_insert_function(builder.module, function_type, "llvm.aarch64.hint"),
                [ir.Constant(ir.IntType(32), 1)],
            )
        return context.get_dummy_value()

    return types.void(), codegen


_I32, _I64, _BYTES = ir.IntType(32), ir.IntType(64), ir.IntType(8).as_pointer()


@intrinsic
def _prefetch_write(typingctx: Any, records: Any, index: Any) -> Any:
    sig = types.void(records, index)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = builder.inttoptr(_address(context, builder, sig, args), _BYTES)
        prefetch = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32]),
            "llvm.prefetch.p0",
        )
        to_write, keep, data = (ir.Constant(_I32, value) for value in (1, 3, 1))
        builder.call(prefetch, [address, to_write, keep, data])
        return context.get_dummy_value()

    return sig, codegen


def _futex(operation: int) -> Any:
    """futex(2) on `records[index][field]`; `value` is expected (wait) or a count (wake)."""

    def typed(
        typingctx: Any, records: Any, index: Any, field: Any, value: Any, timeout_ns: Any
    ) -> Any:
        name = field.literal_value
        _, member = _member(records, name)
        if member.bitwidth != 32:
            raise TypeError(f"a futex is 4 bytes wide; field {name!r} is not")
        value, timeout_ns = types.unliteral(value), types.unliteral(timeout_ns)
        sig = types.int64(records, index, field, value, timeout_ns)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            pointer = _pointer(context, builder, sig, args, name)
            timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
            timeout = context.cast(builder, args[4], sig.args[4], types.int64)
            second = ir.Constant(_I64, 1_000_000_000)
            zero, one = ir.Constant(_I32, 0), ir.Constant(_I32, 1)
            builder.store(builder.sdiv(timeout, second), builder.gep(timespec, [zero, zero]))
            builder.store(builder.srem(timeout, second), builder.gep(timespec, [zero, one]))
            syscall = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(_I64, [_I64] * 7), "syscall"
            )
            wanted = context.cast(builder, args[3], sig.args[3], types.int64)
            return builder.call(
                syscall,
                [
                    ir.Constant(_I64, _SYS_FUTEX),
                    builder.ptrtoint(pointer, _I64),
                    ir.Constant(_I64, operation),
                    wanted,
                    builder.ptrtoint(timespec, _I64),
                    ir.Constant(_I64, 0),
                    ir.Constant(_I64, 0),
                ],
            )

        return sig, codegen

    return intrinsic(prefer_literal=True)(typed)


@intrinsic
def _monotonic_ns(typingctx: Any) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        clock_gettime = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_I32, [_I32, _I64]), "clock_gettime"
        )
        zero, one = ir.Constant(_I32, 0), ir.Constant(_I32, 1)
        builder.call(clock_gettime, [one, builder.ptrtoint(timespec, _I64)])
        seconds = builder.load(builder.gep(timespec, [zero, zero]))
        rest = builder.load(builder.gep(timespec, [zero, one]))
        return builder.add(builder.mul(seconds, ir.Constant(_I64, 1_000_000_000)), rest)

    return types.int64(), codegen


# What kernels call.  `interpreted()` decides once, at import: either all are compiled or none.
if not interpreted():
    load_acquire = _load("acquire")
    load_relaxed = _load("monotonic")
    store_release = _store("release")
    store_relaxed = _store("monotonic")
    exchange = _read_modify_write("xchg")
    fetch_add = _read_modify_write("add")
    compare_exchange = _cmpxchg()
    fence: Any = _fence
    pause: Any = _pause
    prefetch_write: Any = _prefetch_write
    futex_wait = _futex(_FUTEX_WAIT)
    futex_wake = _futex(_FUTEX_WAKE)
    monotonic_ns: Any = _monotonic_ns
else:

    def load_acquire(records: Any, index: int, field: str) -> Any:
        return records[index][field]

    load_relaxed = load_acquire

    def store_release(records: Any, index: int, field: str, value: Any) -> None:
        records[index][field] = value

    store_relaxed = store_release

    def exchange(records: Any, index: int, field: str, value: Any) -> Any:
        old = records[index][field]
        records[index][field] = value
        return old

    def fetch_add(records: Any, index: int, field: str, value: Any) -> Any:
        old = records[index][field]
        records[index][field] = old + records.dtype[field].type(value)
        return old

    def compare_exchange(records: Any, index: int, field: str, expected: Any, new: Any) -> Any:
        old = records[index][field]
        if old == expected:
            records[index][field] = new
        return old

    def _no_fence() -> None:
        pass

    fence = _no_fence

    pause = _no_fence

    def prefetch_write(records: Any, index: int) -> None:
        pass

    def futex_wait(records: Any, index: int, field: str, value: int, timeout_ns: int) -> int:
        raise AssertionError("interpreted kernels run alone: nobody could wake us")

    def futex_wake(records: Any, index: int, field: str, value: int, timeout_ns: int) -> int:
        return 0

    monotonic_ns = time.monotonic_ns
