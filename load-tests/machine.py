"""The machine: its cores and who gets which, what its processes have used, what programs call themselves."""

import os
import platform
import re
import shutil
import subprocess

TICKS = os.sysconf("SC_CLK_TCK")
# The client of most scenarios, and how it is asked its version.
WRK = ("wrk", "-v")
# Those that we were given: a scenario that plays the client itself keeps to some of them, and leaves it so.
CORES = sorted(os.sched_getaffinity(0))


def layout(threads=1):
    """Cores for the proxy and cores for everybody else. Where there are too few, they share what there is."""
    if len(CORES) < 2:
        raise SystemExit("load tests need two cores: one for the proxy, one for whoever asks and answers")
    if threads == 1:
        return {CORES[-1]}, set(CORES[:-1])
    if len(CORES) >= 4:
        half = len(CORES) // 2
        return set(CORES[half:]), set(CORES[:half])
    return set(CORES), set(CORES)


def tree(pid):
    """A process and all that it started, as far as they live."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as children:
                    waiting += [int(child) for child in children.read().split()]
            found.append(pid)
        except OSError:
            continue
    return found


def cpu_seconds(pid):
    """User and system time of a process and all that it started."""
    ticks = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory_bytes(pid):
    """What a process and all that it started hold, shared pages divided among those who share them."""
    total = 0
    for one in tree(pid):
        with open(f"/proc/{one}/smaps_rollup") as rollup:
            total += int(re.search(r"^Pss:\s+(\d+)", rollup.read(), re.M).group(1)) * 1024
    return total


def growth(pid):
    """Answers a function that says by how much a process and all that it started have grown at most since now, in MiB."""

    def resident(what):
        mib = 0
        for one in tree(pid):
            with open(f"/proc/{one}/status") as status:
                mib += int(re.search(rf"^{what}:\s+(\d+)", status.read(), re.M).group(1)) / 1024
        return mib

    before = resident("VmRSS")
    return lambda: resident("VmHWM") - before


def socket_bytes():
    """What the kernel holds for TCP, everybody's together: it has so much for all of them, and stalls all when it is gone."""
    with open("/proc/net/sockstat") as sockstat:
        return int(re.search(r"^TCP:.* mem (\d+)", sockstat.read(), re.M).group(1)) * os.sysconf("SC_PAGE_SIZE")


def load():
    """How busy the machine was before: the load average of the last minute."""
    return os.getloadavg()[0]


def description(client=WRK):
    with open("/proc/cpuinfo") as cpuinfo:
        models = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read(), re.M)
    with open("/proc/meminfo") as meminfo:
        memory = int(re.search(r"MemTotal:\s+(\d+)", meminfo.read()).group(1)) / 1024 / 1024
    return {
        "CPU": models[0] if models else platform.machine(),
        "cores": str(len(CORES)),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "client": version(*client).split(" Copyright")[0],
        "session store": version("memcached", "-V"),
        "application": version("nginx", "-v").removeprefix("nginx version: "),
        "load average at the start": f"{load():.2f}",
    }


def output(*command):
    """What a command says, on either channel; nothing when it is not there."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.stdout.strip()


def version(*command):
    """The first line with a number in it of what a program says of its version."""
    lines = [line.strip() for line in output(*command).splitlines() if re.search(r"\d+\.\d+", line)]
    return lines[0] if lines else "unknown"
