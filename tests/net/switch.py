"""Three hosts or more on this machine: network namespaces NAME-1 .. NAME-N at 10.77.0.1 .. 10.77.0.N, each with a cable (veth) to
NAME-0, where this process carries each frame from one cable to the others.

So it can do what a network does: `cut 2` and `join 2` take the link of a host down and up, `block 2 3` is a firewall that drops all
between two hosts, `open 2 3` ends that, `delay 200` holds frames for so many milliseconds, `loss 1` drops so many of a hundred. Commands come
by standard input, each is answered with a line; at its end the namespaces are removed. Needs root.
"""
import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
# linux/if_packet.h: frames that this process sends are not read.
SOL_PACKET, PACKET_IGNORE_OUTGOING, EVERY_PROTOCOL = 263, 23, 0x0003
# linux/ethtool.h: whoever sends makes its own checksums and segments, since no network card does it later.
SIOCETHTOOL, ETHTOOL_STXCSUM, ETHTOOL_SGSO = 0x8946, 0x17, 0x24
IPV4, ARP, BROADCAST = b"\x08\x00", b"\x08\x06", 0xFF


def ip(*args):
    subprocess.run(["ip", *args], check=True)


@contextlib.contextmanager
def inside(namespace):
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        enter(other)
        try:
            yield
        finally:
            enter(own)


def enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def set_off(device, feature):
    """Turns off what network cards do for the kernel."""
    value = ctypes.create_string_buffer(struct.pack("II", feature, 0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sP", device.encode(), ctypes.addressof(value)))


def host(name, number):
    """Makes a namespace and its cable; returns the socket at the other end of that."""
    namespace, end = f"{name}-{number}", f"k{number}"
    ip("netns", "add", namespace)
    ip("-n", f"{name}-0", "link", "add", end, "type", "veth", "peer", "name", "k0", "netns", namespace)
    for args in (
        ["addr", "add", f"10.77.0.{number}/24", "dev", "k0"],
        ["link", "set", "k0", "address", f"02:00:00:00:00:{number:02x}"],
        ["link", "set", "k0", "up"],
        ["link", "set", "lo", "up"],
    ):
        ip("-n", namespace, *args)
    with inside(namespace):
        set_off("k0", ETHTOOL_STXCSUM)
        set_off("k0", ETHTOOL_SGSO)
    ip("-n", f"{name}-0", "link", "set", end, "up")
    with inside(f"{name}-0"):
        cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(EVERY_PROTOCOL))
        cable.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        cable.bind((end, EVERY_PROTOCOL))
    return cable


class Network:
    def __init__(self, name, cables):
        self.name, self.cables, self.blocked = name, cables, set()
        self.delay, self.loss, self.dice = 0.0, 0.0, random.Random(1)
        self.waiting, self.count = [], 0

    def take(self, number):
        try:
            frame = self.cables[number].recv(65536)
        except OSError:
            return  # Nothing any more, or its link is down.
        if frame[12:14] not in (IPV4, ARP):
            return
        # The last byte of its destination is the host.
        others = [to for to in self.cables if frame[5] in (to, BROADCAST) and to != number]
        for to in others:
            is_blocked = frame[12:14] == IPV4 and frozenset((number, to)) in self.blocked
            if not is_blocked and self.dice.random() >= self.loss:
                self.count += 1
                heapq.heappush(self.waiting, (time.monotonic() + self.delay, self.count, to, frame))

    def give(self):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, to, frame = heapq.heappop(self.waiting)
            with contextlib.suppress(OSError):  # Lost, as in a full queue or where a link is down.
                self.cables[to].send(frame)

    def obey(self, command, *numbers):
        if command in ("cut", "join"):
            ip("-n", f"{self.name}-0", "link", "set", f"k{int(numbers[0])}", "down" if command == "cut" else "up")
        elif command in ("block", "open"):
            pair = frozenset(map(int, numbers))
            (self.blocked.add if command == "block" else self.blocked.discard)(pair)
        elif command == "delay":
            self.delay = float(numbers[0]) / 1000
        elif command == "loss":
            self.loss = float(numbers[0]) / 100
        else:
            raise ValueError(command)

    def run(self):
        while True:
            wait = max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else None
            ready, _, _ = select.select([*self.cables.values(), sys.stdin], [], [], wait)
            for number, cable in self.cables.items():
                if cable in ready:
                    self.take(number)
            if sys.stdin in ready:
                line = os.read(0, 4096).decode().split()
                if not line:
                    return
                self.obey(*line)
                print("done", flush=True)
            self.give()


def main():
    name, hosts = sys.argv[1], range(1, int(sys.argv[2]) + 1)
    try:
        ip("netns", "add", f"{name}-0")
        network = Network(name, {number: host(name, number) for number in hosts})
        print("ready", flush=True)
        network.run()
    finally:
        for number in (0, *hosts):
            subprocess.run(["ip", "netns", "del", f"{name}-{number}"], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
