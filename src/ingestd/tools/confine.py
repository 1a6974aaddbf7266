"""The program that confines itself, then becomes the program that is to run: no network, nothing written outside.

It is started by its path and imports nothing of ingestd, and nothing that it can do without, so that it starts quickly:

    python -I -S confine.py auto|required FOLDER… -- PROGRAM ARGUMENT…

Landlock (landlock(7), Linux 5.13) lets it and all it starts write, make and remove files in the folders alone, and
signal or debug nobody else; a seccomp filter (seccomp(2)) leaves it no sockets but local ones. Both need no privilege
and cannot be undone. What is read is not limited, nor are modes and times of files; and in /tmp, where LibreOffice
needs it, sockets may be made and files removed. With `required` it ends with exit code 126 where the kernel refuses;
with `auto` it does what the kernel lets it do.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

REFUSED_EXIT_CODE = 126

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_ASK_ABI = 1
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2

_WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR, _MAKE_REG = (1 << bit for bit in (1, 4, 5, 6, 7, 8))
_MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM, _REFER, _TRUNCATE = (1 << bit for bit in (9, 10, 11, 12, 13, 14))
_IN_FOLDERS = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM
_BIND_AND_CONNECT_TCP = 3
_ABSTRACT_SOCKETS_AND_SIGNALS = 3
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")

_IGNORED_SIGNALS = (13, 25)
"""SIGPIPE and SIGXFSZ, on the machines of `_SYSTEMS` and most others."""
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  where semaphores and shared memory are made, and nowhere else
_SOCKETS = "/tmp"  # noqa: S108  LibreOffice makes and removes a socket there, and cannot be told another place

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EACCES
_SYSTEMS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""For each machine: its audit number, and the number of socket(2)."""
_IO_URING_SETUP = 425
_X32 = 0x40000000


def landlock_abi() -> int:
    """Give the version of Landlock that this kernel offers this process; 0 where it offers none."""
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_ABI)
    except OSError:
        return 0


def confine(folders: tuple[str, ...]) -> None:
    """Confine this thread, for good. Raises `OSError` where the kernel refuses."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0)
    _keep_files(folders)
    _keep_from_network()


def _keep_files(folders: tuple[str, ...]) -> None:
    abi = landlock_abi()
    if not abi:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    of_folders = _IN_FOLDERS | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    fields = [of_folders | _MAKE_CHAR | _MAKE_BLOCK]
    fields += [_BIND_AND_CONNECT_TCP] if abi >= 4 else []
    fields += [_ABSTRACT_SOCKETS_AND_SIGNALS] if abi >= 6 else []
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    for path in folders:
        _allow(ruleset, path, of_folders)
    for path in _DEVICES:
        _allow(ruleset, path, of_folders & (_WRITE_FILE | _TRUNCATE))
    _allow(ruleset, _SHARED_MEMORY, of_folders)
    _allow(ruleset, _SOCKETS, _MAKE_SOCK | _REMOVE_FILE)
    _call(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, access: int) -> None:
    """Allow what is to be done at and below a path, if it is there."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        access &= _WRITE_FILE | _TRUNCATE
    _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", access, place), 0)
    os.close(place)


def _keep_from_network() -> None:
    """Refuse sockets that are not local, and the two other ways to one: io_uring and another machine's calls."""
    machine = os.uname().machine
    if machine not in _SYSTEMS:
        return
    audit, socket = _SYSTEMS[machine]
    code = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 7, audit),
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 5, 0, _X32),
        (_EQUAL, 4, 0, _IO_URING_SETUP),
        (_EQUAL, 0, 2, socket),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 0, 1, 1),  # AF_UNIX
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = _Program(len(code), ctypes.addressof(packed))
    _prctl(_PR_SET_SECCOMP, _FILTER, ctypes.addressof(program))


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _call(*arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.syscall(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    if number < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(number)


def _prctl(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(ctypes.c_ulong(each) for each in (*arguments, 0, 0)[:5])):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _heed_signals() -> None:
    """Undo that Python ignores some, which what it becomes should not. Python's own module takes too long to load."""
    for number in _IGNORED_SIGNALS:
        ctypes.CDLL(None).signal(number, None)


def _end(why: str) -> None:
    sys.stderr.write(f"{why}\n")
    sys.exit(REFUSED_EXIT_CODE)


def main(mode: str, *words: str) -> None:
    at = words.index("--")
    try:
        confine(words[:at])
    except OSError as error:
        if mode == "required":
            _end(f"the program cannot be confined: {error.strerror}")
    _heed_signals()
    program = words[at + 1]
    try:
        os.execv(program, words[at + 1 :])  # noqa: S606  what this program is for
    except OSError as error:
        _end(f"{program} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
