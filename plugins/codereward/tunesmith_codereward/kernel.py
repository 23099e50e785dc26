"""Fences of the Linux kernel, for a process without threads: namespaces, Landlock, seccomp, no capabilities.

It is imported by fence.py from its own folder, and uses only the standard library. Numbers are those of the kernel's
headers (include/uapi).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
import sysconfig

LIBC = ctypes.CDLL(None, use_errno=True)
DISK = "16m"
"""Size of the working folder, where it can be a file system of its own."""
NEW_USER, NEW_NET, NEW_IPC, NEW_MOUNTS = 0x10000000, 0x40000000, 0x08000000, 0x00020000
PARENT_DEATH, NO_NEW_PRIVILEGES, SECCOMP = 1, 38, 22  # prctl

# Landlock: rights on files by the version of its interface that added them.
EXECUTE, WRITE, READ, READ_FOLDER = 1, 2, 4, 8
REMOVE_FOLDER, REMOVE, MAKE_FOLDER, MAKE_FILE, MAKE_LINK, MOVE, TRUNCATE = (
    1 << bit for bit in (4, 5, 7, 8, 12, 13, 14)
)
RIGHTS = {1: (1 << 13) - 1, 2: MOVE, 3: TRUNCATE, 5: 1 << 15}
IN_WORK = WRITE | READ | READ_FOLDER | REMOVE_FOLDER | REMOVE | MAKE_FOLDER | MAKE_FILE | MAKE_LINK | MOVE | TRUNCATE
LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/random")

# seccomp: system calls that are refused, by machine. Those from 424 on have the same numbers everywhere.
ANYWHERE = (424, *range(425, 428), *range(428, 434), 434, 438, 440, 442, 447, 448, 452, 463, 466, 469)
"""pidfd_send_signal, io_uring (which opens sockets), mount calls, pidfd_open, pidfd_getfd, process_madvise,
mount_setattr, memfd_secret, process_mrelease, fchmodat2, setxattrat, removexattrat, file_setattr."""
CLONE3 = 435
CALLS = {
    # socket, socketpair, fork, vfork, execve, execveat, shmget, semget, msgget, mq_open, ptrace, process_vm_readv and
    # writev, tkill, rt_sigqueueinfo, rt_tgsigqueueinfo, chroot, pivot_root, mount, umount2, unshare, setns, bpf, keys,
    # perf_event_open, userfaultfd, open_by_handle_at, modules, kexec_load, reboot
    "x86_64": (41, 53, 57, 58, 59, 322, 29, 64, 68, 240, 101, 310, 311, 200, 129, 297, 161, 155, 165, 166, 272, 308,
               321, 248, 249, 250, 298, 323, 304, 175, 313, 246, 169),
    "aarch64": (198, 199, 221, 281, 194, 190, 186, 180, 117, 270, 271, 130, 138, 240, 51, 41, 40, 39, 97, 268, 280,
                217, 218, 219, 241, 282, 265, 105, 273, 104, 142),
}  # fmt: skip
UNRESTRICTED = {
    # What Landlock does not restrict. Of files anywhere: chmod, fchmod, fchmodat, chown, fchown, lchown, fchownat,
    # setxattr, removexattr and their variants, utime, utimes, futimesat, utimensat; truncate, before Landlock's
    # version 3. Of other processes of the user: setpriority, ioprio_set, sched_setparam, sched_setscheduler,
    # sched_setaffinity, sched_setattr, migrate_pages, move_pages, kcmp. memfd_create is memory that no limit counts.
    "x86_64": (90, 91, 268, 92, 93, 94, 260, 188, 189, 190, 197, 198, 199, 132, 235, 261, 280, 76, 141, 251, 142, 144,
               203, 314, 256, 279, 312, 319),
    "aarch64": (52, 53, 55, 54, 5, 6, 7, 14, 15, 16, 88, 45, 140, 30, 118, 119, 122, 274, 238, 239, 272, 279),
}  # fmt: skip
CLONE = {"x86_64": 56, "aarch64": 220}
OWN = {"x86_64": (62, 234, 302), "aarch64": (129, 131, 261)}
"""kill, tgkill, prlimit64: allowed for this process only."""
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def isolate() -> tuple[bool, list[str]]:
    """Fence this process in. Return whether it has a user namespace of its own, and the fences that are missing."""
    if sys.platform != "linux":
        return False, [f"{sys.platform} has neither Landlock nor seccomp"]
    LIBC.prctl(PARENT_DEATH, 9, 0, 0, 0)
    own_namespace = namespaces()
    LIBC.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    problems = [problem for problem in (landlock(), without_capabilities(), seccomp()) if problem]
    return own_namespace, problems


def namespaces() -> bool:
    """Enter a network without devices, and mount a small file system as the working folder, where users may do so."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(NEW_USER | NEW_NET | NEW_IPC | NEW_MOUNTS):
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError:
        return True  # without a map, mounting fails below, and everything else works
    folder = os.fsencode(os.getcwd())
    private, no_devices = 1 << 18 | 1 << 14, 2 | 4 | 8  # MS_PRIVATE | MS_REC; nosuid, nodev, noexec
    LIBC.mount(b"none", b"/", None, private, None)
    if not LIBC.mount(b"tmpfs", folder, b"tmpfs", no_devices, f"size={DISK},mode=700".encode()):
        os.chdir(folder)
    return True


def without_capabilities() -> str:
    """Give up all capabilities. Return a message if that is not possible."""
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    return f"capset: {os.strerror(ctypes.get_errno())}" if LIBC.capset(header, none) else ""


def landlock() -> str:
    """Allow to change files only in the working folder, and to read only them and libraries. Return what is missing."""
    version = LIBC.syscall(444, None, 0, 1)
    if version < 1:
        return "Landlock is missing"
    rights = sum(bits for since, bits in RIGHTS.items() if since <= version)
    # Since 4, connections over TCP can be refused; since 6, signals to other processes and abstract sockets.
    attributes = struct.pack("=QQQ", rights, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = LIBC.syscall(444, attributes, len(attributes), 0)
    if ruleset < 0:
        return f"Landlock: {os.strerror(ctypes.get_errno())}"
    standard = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    standard += [sysconfig.get_config_var(name) for name in ("DESTSHARED", "LIBDIR")]
    places = dict.fromkeys([*LIBRARIES, *filter(None, standard)], READ | READ_FOLDER)
    for path, allowed in {**places, **dict.fromkeys(DEVICES, READ | WRITE), os.getcwd(): IN_WORK}.items():
        try:
            folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            allowed &= READ | WRITE
        failed = LIBC.syscall(445, ruleset, 1, struct.pack("=Qi", allowed & rights, folder), 0)
        os.close(folder)
        if failed:
            return f"Landlock: {path}: {os.strerror(ctypes.get_errno())}"
    failed = LIBC.syscall(446, ruleset, 0)
    os.close(ruleset)
    return f"Landlock: {os.strerror(ctypes.get_errno())}" if failed else ""


def seccomp() -> str:
    """Refuse sockets, new processes, signals to others, and what else leads out. Return a message if not possible."""
    machine = platform.machine()
    if machine not in CALLS or struct.calcsize("P") != 8:
        return f"seccomp: the system calls of {machine} are unknown"
    program = b"".join(struct.pack("=HBBI", *line) for line in filter_for(machine))
    buffer = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    failed = LIBC.prctl(SECCOMP, 2, description, 0, 0)
    return f"seccomp: {os.strerror(ctypes.get_errno())}" if failed else ""


def filter_for(machine: str) -> list[tuple[int, int, int, int]]:
    """Return a program of Berkeley packet filter: (operation, lines to skip if true, if false, value)."""
    load, equal, at_least, has_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, unknown = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # EPERM, ENOSYS
    number, architecture, first_argument = 0, 4, 16
    lines = [(load, 0, 0, architecture), (equal, 1, 0, ARCHITECTURE[machine]), (answer, 0, 0, kill)]
    lines += [(load, 0, 0, number), (at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]
    for call in (*CALLS[machine], *UNRESTRICTED[machine], *ANYWHERE):
        lines += [(equal, 0, 1, call), (answer, 0, 0, refuse)]
    lines += [(equal, 0, 1, CLONE3), (answer, 0, 0, unknown)]  # libraries then use clone, whose flags are visible
    lines += [(equal, 0, 4, CLONE[machine]), (load, 0, 0, first_argument), (has_bit, 0, 1, 0x10000)]  # CLONE_THREAD
    lines += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    for call in OWN[machine]:
        lines += [(equal, 0, 5, call), (load, 0, 0, first_argument), (equal, 1, 0, os.getpid()), (equal, 0, 1, 0)]
        lines += [(answer, 0, 0, allow), (answer, 0, 0, refuse)]
    return [*lines, (answer, 0, 0, allow)]
