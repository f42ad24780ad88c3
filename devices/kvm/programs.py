"""The guest's programs: x86-64 machine code, which runs wherever it is put.

rdi is the address of the vCPU's `layout.WORDS`, and each ends by writing to the port DONE.  They
run in user mode (CPL 3) with leave to use ports (IOPL 3): the processor executes that whatever the
back-end, while one without help from the hardware (kvm_pvm) emulates a kernel that does not
cooperate with it.

    WATCH      count rounds, until `stop` or for r8 ticks; a round of more than r9 ticks is a gap
    TOUCH      write a word into each page of 4 KiB from rsi to before r8
    NOTIFY     write to the port NOTIFIED, r8 times
    IDENTIFY   CPUID, r8 times
"""

from typing import Final

NOTIFIED: Final = 0x80
DONE: Final = 0x81

_WATCH: Final = """
    0f 31           rdtsc
    48 c1 e2 20     shl rdx, 32
    48 09 d0        or rax, rdx
    48 89 c3        mov rbx, rax              ; rbx: when the last round ended
    49 01 c0        add r8, rax
    48 ff 07        1: inc qword [rdi]        ; rounds
    0f 31           rdtsc
    48 c1 e2 20     shl rdx, 32
    48 09 d0        or rax, rdx
    48 89 c1        mov rcx, rax
    48 29 d9        sub rcx, rbx
    48 89 c3        mov rbx, rax
    4c 39 c9        cmp rcx, r9
    72 08           jb 2f
    48 ff 47 08     inc qword [rdi + 8]       ; gaps
    48 01 4f 10     add [rdi + 16], rcx       ; gap_ticks
    48 83 7f 18 00  2: cmp qword [rdi + 24], 0  ; stop
    75 05           jne 3f
    4c 39 c0        cmp rax, r8
    72 d2           jb 1b
    e6 81           3: out DONE, al
"""
_TOUCH: Final = """
    48 89 36        1: mov [rsi], rsi
    48 ff 07        inc qword [rdi]
    48 81 c6 00 10 00 00  add rsi, 4096
    4c 39 c6        cmp rsi, r8
    72 ee           jb 1b
    e6 81           out DONE, al
"""
_NOTIFY: Final = """
    e6 80           1: out NOTIFIED, al
    48 ff 07        inc qword [rdi]
    49 ff c8        dec r8
    75 f6           jnz 1b
    e6 81           out DONE, al
"""
_IDENTIFY: Final = """
    31 c0           1: xor eax, eax
    0f a2           cpuid
    48 ff 07        inc qword [rdi]
    49 ff c8        dec r8
    75 f4           jnz 1b
    e6 81           out DONE, al
"""


def _assembled(listing: str) -> bytes:
    """The bytes of a listing: the pairs of digits that each line begins with."""
    code = bytearray()
    for line in listing.strip().splitlines():
        code += bytes.fromhex(line.strip().partition("  ")[0])
    return bytes(code)


WATCH: Final = _assembled(_WATCH)
TOUCH: Final = _assembled(_TOUCH)
NOTIFY: Final = _assembled(_NOTIFY)
IDENTIFY: Final = _assembled(_IDENTIFY)
