"""Probes of the code sandbox, by area: a name, and Python that ends without an error only where the sandbox is open.

`sys_call(NAME, ...)` makes a system call by its number, and raises PermissionError for "not permitted" and "there is no
such call" alone: a call that is refused for its arguments was not held back.
"""

from eval.sandbox.seccomp import _DENIED

# Of x86-64: calls that the filter leaves to the kernel's own rights, and what this project does not list.
KERNELS_OWN = {
    "settimeofday": (164, "0, bytes(16), 0"),
    "clock_settime": (227, "0, bytes(16)"),
    "sethostname": (170, 'b"x", 1'),
    "setdomainname": (171, 'b"x", 1'),
    "iopl": (172, "3"),
    "ioperm": (173, "0, 8, 1"),
    "vhangup": (153, ""),
    "clone3 with a user namespace": (435, 'struct.pack("Q", 0x10000000) + bytes(80), 88'),
    "clone into a user namespace": (56, "0x10000000 | 17, 0, 0, 0, 0"),
    "clone into a network namespace": (56, "0x40000000 | 17, 0, 0, 0, 0"),
    "clone into a mount namespace": (56, "0x00020000 | 17, 0, 0, 0, 0"),
    "getpid by the x32 table": (0x40000000 | 39, ""),
    "socket by the x32 table": (0x40000000 | 41, "1, 1, 0"),
    "a call that does not exist": (999, ""),
}
_ARGUMENTS = {"mount": 'b"none", b"/usr", b"tmpfs", 0, 0', "unshare": "0x10000000", "socket": "1, 1, 0"}


def _calls() -> list[tuple[str, str]]:
    probes = [
        (name, f"sys_call({numbers['x86_64']}, {_ARGUMENTS.get(name, '0, 0, 0, 0, 0')})")
        for name, numbers in _DENIED.items()
    ]
    return probes + [(name, f"sys_call({number}, {given})") for name, (number, given) in KERNELS_OWN.items()]


def _families() -> list[tuple[str, str]]:
    names = (
        *("UNIX", "INET", "INET6", "NETLINK", "PACKET", "VSOCK", "ALG", "CAN", "TIPC", "QIPCRTR", "RDS", "KEY", "X25"),
        *("APPLETALK", "IRDA"),
    )
    probes = [(f"AF_{name}", f"socket.socket(socket.AF_{name}, socket.SOCK_DGRAM)") for name in names]
    raw = [
        ("raw ICMP", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
        ("ping socket", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)"),
        ("Bluetooth", "socket.socket(31, socket.SOCK_RAW)"),
        ("XDP", "socket.socket(44, socket.SOCK_RAW)"),
        ("kernel connection multiplexor", "socket.socket(41, socket.SOCK_DGRAM)"),
        ("abstract Unix socket", 'socket.socket(socket.AF_UNIX).connect("\\0/tmp/.X11-unix/X0")'),
        ("D-Bus", 'socket.socket(socket.AF_UNIX).connect("/run/dbus/system_bus_socket")'),
        ("Docker", 'socket.socket(socket.AF_UNIX).connect("/var/run/docker.sock")'),
        ("cloud metadata", 'socket.create_connection(("169.254.169.254", 80), 1)'),
        ("loopback", 'socket.create_connection(("127.0.0.1", 22), 1)'),
        ("name service", 'socket.getaddrinfo("example.org", 80)'),
        ("pair of internet sockets", "socket.socketpair(socket.AF_INET)"),
    ]
    return probes + raw


_THERE = (
    *("/etc/passwd", "/etc/shadow", "/etc/hostname", "/etc/machine-id", "/root", "/home", "/tmp", "/var/log", "/run"),
    *("/sys", "/sys/fs/cgroup", "/sys/kernel/debug", "/boot", "/opt", "/mnt", "/proc", "/proc/self/environ"),
    *("/proc/1/root", "/proc/self/fd", "/proc/sys/kernel/hostname", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/dev/kvm"),
    *("/dev/fuse", "/dev/tty", "/dev/ptmx", "/dev/shm", "/dev/random", "/dev/net/tun", "/dev/vsock"),
    *("/usr/../etc/passwd", "/lib/../etc/passwd", "/python/../etc/passwd"),
)

AREAS: dict[str, list[tuple[str, str]]] = {
    "files of the host": [(path, f"os.lstat({path!r})") for path in _THERE],
    "network": _families(),
    "system calls": _calls(),
    "writing": [
        ("/", 'open("/x", "w")'),
        ("/dev", 'open("/dev/x", "w")'),
        ("/usr/bin", 'open("/usr/bin/x", "w")'),
        ("the interpreter", 'open(os.path.realpath(sys.executable), "r+b")'),
        ("its own text", 'open("/program.py", "a")'),
        ("its own text's mode", 'os.chmod("/program.py", 0o777)'),
        ("a link", 'os.symlink("/etc", "/x")'),
        ("a hard link to a setuid program", 'os.link("/usr/bin/su", "/x")'),
        ("a device", 'os.mknod("/x", 0o600 | stat.S_IFBLK, os.makedev(8, 0))'),
        ("a named pipe", 'os.mkfifo("/x")'),
        ("an unnamed file", 'os.open("/", os.O_TMPFILE | os.O_RDWR)'),
        ("an unnamed file in /usr", 'os.open("/usr", os.O_TMPFILE | os.O_RDWR)'),
        ("the null device's mode", 'os.chmod("/dev/null", 0o600)'),
        ("the null device's owner", 'os.chown("/dev/null", os.getuid(), -1)'),
        ("removing the null device", 'os.unlink("/dev/null")'),
        ("renaming the null device", 'os.rename("/dev/null", "/dev/x")'),
        ("a file without a path", 'os.memfd_create("x")'),
    ],
    "other processes": [
        ("ending process 1", "os.kill(1, 9); held_if_alive()"),
        ("stopping process 1", "os.kill(1, 19); held_if_alive()"),
        ("a signal to one outside", "os.kill(99999, 0)"),
        ("a handle on one outside", "os.pidfd_open(99999)"),
        ("limits of one outside", "resource.prlimit(99999, resource.RLIMIT_CPU, (1, 1))"),
        ("the place of one outside", "os.sched_setaffinity(99999, {0})"),
        ("priority of one outside", "os.setpriority(os.PRIO_PROCESS, 99999, 5)"),
        ("memory of one outside", 'open("/proc/99999/mem", "r+b")'),
        ("a session of its parent", "os.setpgid(1, 1)"),
        ("a terminal", 'os.open("/dev/tty", os.O_RDWR)'),
        ("typing into a terminal", "fcntl.ioctl(0, termios.TIOCSTI, b'x')"),
        ("standard input as a terminal", "os.tcgetpgrp(0)"),
    ],
    "rights": [
        ("become root", "os.setuid(0)"),
        ("become root's group", "os.setgid(0)"),
        ("another user", "os.setresuid(1, 1, 1)"),
        ("groups", "os.setgroups([0])"),
        ("another root", 'os.chroot("/usr")'),
        ("higher priority", "os.nice(-5)"),
        ("real time", "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))"),
        ("a setuid program that acts", 'must_be_root(["/usr/bin/su", "-c", "id -u"])'),
        ("sudo", 'must_be_root(["/usr/bin/sudo", "-n", "id", "-u"])'),
        ("a new namespace by unshare", 'must_work(["/usr/bin/unshare", "-Ur", "true"])'),
        ("a mount by mount", 'must_work(["/usr/bin/mount", "-t", "tmpfs", "none", "/usr"])'),
        ("bubblewrap again", 'must_work(["/usr/bin/bwrap", "--ro-bind", "/", "/", "true"])'),
        ("more processes", "raise_limit(resource.RLIMIT_NPROC)"),
        ("more memory", "raise_limit(resource.RLIMIT_AS)"),
        ("more files", "raise_limit(resource.RLIMIT_NOFILE)"),
        ("larger files", "raise_limit(resource.RLIMIT_FSIZE)"),
        ("more time", "raise_limit(resource.RLIMIT_CPU)"),
        ("core dumps", "raise_limit(resource.RLIMIT_CORE)"),
    ],
    "amounts": [
        ("memory", "bytearray(2 << 30)"),
        ("memory by mmap", "mmap.mmap(-1, 2 << 30)"),
        ("shared memory", "mmap.mmap(-1, 2 << 30, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)"),
        ("locked memory", "must_lock(1 << 28)"),
        ("open files", 'kept = [os.open("/dev/null", 0) for _ in range(100)]'),
        ("pipes", "kept = [os.pipe() for _ in range(100)]"),
        ("threads", "kept = [start_thread() for _ in range(50)]"),
        ("processes", "fork_many(50)"),
        ("a file larger than the output", "os.ftruncate(1, 1 << 40)"),
    ],
}

PRELUDE = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, stat, struct, subprocess, sys, termios, threading
libc = ctypes.CDLL(None, use_errno=True)

def sys_call(number, *given):
    ctypes.set_errno(0)
    given = [each if isinstance(each, bytes) else ctypes.c_long(each) for each in given]
    found = libc.syscall(ctypes.c_long(number), *given)
    if found == -1 and ctypes.get_errno() in (errno.EPERM, errno.EACCES, errno.ENOSYS):
        raise PermissionError
    if found == 0 and number == 56:
        os._exit(0)

def held_if_alive():
    os.kill(1, 0)
    raise PermissionError("process 1 goes on")

def must_work(command):
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)

def must_be_root(command):
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL)
    if done.stdout.strip() != b"0":
        raise PermissionError

def raise_limit(which):
    resource.setrlimit(which, (1 << 40, 1 << 40))

def must_lock(size):
    block = mmap.mmap(-1, size)
    if libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(block))), ctypes.c_size_t(size)):
        raise PermissionError

def start_thread():
    thread = threading.Thread(target=signal.pause, daemon=True)
    thread.start()

def fork_many(count):
    children = []
    try:
        for _ in range(count):
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, 9)
            os.waitpid(child, 0)
"""


def program(probes: list[tuple[str, str]]) -> str:
    """A program that makes all probes of a list, and prints a line for each: held or open, a tab, its name."""
    return f"""{PRELUDE}
for name, code in {probes!r}:
    kept = None
    try:
        exec(code)
    except (OSError, ValueError, MemoryError, RuntimeError, subprocess.SubprocessError) as error:
        print("held", name, type(error).__name__, error, sep="\\t", flush=True)
    else:
        print("open", name, sep="\\t", flush=True)
os._exit(0)
"""
