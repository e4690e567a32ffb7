"""A list of system calls that untrusted programs may not make, as the filter that the kernel runs.

Namespaces and rlimits leave ways around them: System V segments and memfd files that no memory limit counts, sockets
of families that no network namespace holds back (AF_VSOCK reaches the hypervisor), new user namespaces, kernel
interfaces that have a history. A program that reads numbers and prints numbers needs none of these.

Reads and writes nothing; `eval/sandbox/bubblewrap.py` hands the bytes to `bwrap --seccomp`.
"""

import errno
import platform
import struct

# AUDIT_ARCH and the number of each call: kernel's arch/x86/entry/syscalls/syscall_64.tbl and asm-generic/unistd.h.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_DENIED: dict[str, dict[str, int]] = {
    # Memory that outlives the process or that RLIMIT_AS does not count.
    "shmget": {"x86_64": 29, "aarch64": 194},
    "semget": {"x86_64": 64, "aarch64": 190},
    "msgget": {"x86_64": 68, "aarch64": 186},
    "mq_open": {"x86_64": 240, "aarch64": 180},
    "memfd_create": {"x86_64": 319, "aarch64": 279},
    "memfd_secret": {"x86_64": 447, "aarch64": 447},
    # The world outside. Connected pairs (socketpair) stay, asyncio wants one.
    "socket": {"x86_64": 41, "aarch64": 198},
    # Another view of the machine.
    "mount": {"x86_64": 165, "aarch64": 40},
    "umount2": {"x86_64": 166, "aarch64": 39},
    "pivot_root": {"x86_64": 155, "aarch64": 41},
    "chroot": {"x86_64": 161, "aarch64": 51},
    "unshare": {"x86_64": 272, "aarch64": 97},
    "setns": {"x86_64": 308, "aarch64": 268},
    "open_tree": {"x86_64": 428, "aarch64": 428},
    "move_mount": {"x86_64": 429, "aarch64": 429},
    "fsopen": {"x86_64": 430, "aarch64": 430},
    "name_to_handle_at": {"x86_64": 303, "aarch64": 264},
    "open_by_handle_at": {"x86_64": 304, "aarch64": 265},
    "fsconfig": {"x86_64": 431, "aarch64": 431},
    "fsmount": {"x86_64": 432, "aarch64": 432},
    "fspick": {"x86_64": 433, "aarch64": 433},
    "mount_setattr": {"x86_64": 442, "aarch64": 442},
    "mknod": {"x86_64": 133},
    "mknodat": {"x86_64": 259, "aarch64": 33},
    # Observing other processes: which files of /usr they open, and what the kernel logs.
    "inotify_init": {"x86_64": 253},
    "inotify_init1": {"x86_64": 294, "aarch64": 26},
    "fanotify_init": {"x86_64": 300, "aarch64": 262},
    "syslog": {"x86_64": 103, "aarch64": 116},
    # Other processes.
    "ptrace": {"x86_64": 101, "aarch64": 117},
    "process_vm_readv": {"x86_64": 310, "aarch64": 270},
    "process_vm_writev": {"x86_64": 311, "aarch64": 271},
    "process_madvise": {"x86_64": 440, "aarch64": 440},
    "process_mrelease": {"x86_64": 448, "aarch64": 448},
    "pidfd_getfd": {"x86_64": 438, "aarch64": 438},
    "kcmp": {"x86_64": 312, "aarch64": 272},
    "move_pages": {"x86_64": 279, "aarch64": 239},
    # Kernel interfaces of no use to a puzzle.
    "bpf": {"x86_64": 321, "aarch64": 280},
    "perf_event_open": {"x86_64": 298, "aarch64": 241},
    "userfaultfd": {"x86_64": 323, "aarch64": 282},
    "io_uring_setup": {"x86_64": 425, "aarch64": 425},
    "io_uring_enter": {"x86_64": 426, "aarch64": 426},
    "io_uring_register": {"x86_64": 427, "aarch64": 427},
    "kexec_load": {"x86_64": 246, "aarch64": 104},
    "kexec_file_load": {"x86_64": 320, "aarch64": 294},
    "init_module": {"x86_64": 175, "aarch64": 105},
    "finit_module": {"x86_64": 313, "aarch64": 273},
    "delete_module": {"x86_64": 176, "aarch64": 106},
    "reboot": {"x86_64": 169, "aarch64": 142},
    "swapon": {"x86_64": 167, "aarch64": 224},
    "swapoff": {"x86_64": 168, "aarch64": 225},
    "acct": {"x86_64": 163, "aarch64": 89},
    "quotactl": {"x86_64": 179, "aarch64": 60},
    "add_key": {"x86_64": 248, "aarch64": 217},
    "request_key": {"x86_64": 249, "aarch64": 218},
    "keyctl": {"x86_64": 250, "aarch64": 219},
}
_CLONE = {"x86_64": 56, "aarch64": 220}
# Takes its flags by pointer, which a filter cannot follow; libc falls back to clone where it is "not implemented".
_CLONE3 = 435
# Any CLONE_NEW* flag that clone takes: mount, cgroup, uts, ipc, user, pid, net.
_NEW_NAMESPACE = 0x7E020000
# Numbers from here on are x86-64's second (x32) table, which would reach the same calls unseen.
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
# Where struct seccomp_data holds the number, the architecture and the low half of the first argument.
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16


def supported() -> bool:
    """Whether the numbers of this machine's system calls are known here."""
    return platform.machine() in _ARCHITECTURES


def seccomp_filter() -> bytes:
    """Classic BPF for this machine: the listed calls fail with EPERM, those of a foreign architecture kill.

    Raises:
        KeyError: the machine is not `supported`.
    """
    machine = platform.machine()
    refused = _step(_RETURN, _ERROR | errno.EPERM)
    lines = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, 0, 1),
        refused,
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _ERROR | errno.ENOSYS),
    ]
    for numbers in _DENIED.values():
        # Some calls are of the older architecture only.
        lines += [_step(_EQUAL, numbers[machine], 0, 1), refused] if machine in numbers else []
    lines += [
        _step(_EQUAL, _CLONE[machine], 0, 3),
        _step(_LOAD, _FIRST),
        _step(_ANY_BIT, _NEW_NAMESPACE, 0, 1),
        refused,
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One `struct sock_filter`: the jumps say how many steps to skip."""
    return struct.pack("=HBBI", code, if_true, if_false, value)
