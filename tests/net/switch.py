"""Three hosts or more on this machine: network namespaces NAME-1 .. NAME-N at 10.77.0.1 .. 10.77.0.N, joined by this process.

It carries each packet between them, so it can do what a network does: `cut 2` and `join 2` take a host off and back, `block 2 3` lets no
packet through between two hosts, `open 2 3` ends that, `delay 200` holds packets for so many milliseconds, `loss 1` drops so many of a
hundred. Commands come by standard input, each is answered with a line; at its end the namespaces are removed. Needs root and /dev/net/tun.
"""
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

CLONE_NEWNET, TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x40000000, 0x400454CA, 0x0001, 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*args):
    subprocess.run(["ip", *args], check=True)


def enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def host(name, number):
    """Makes a namespace; returns the descriptor at which its packets come out."""
    namespace = f"{name}-{number}"
    ip("netns", "add", namespace)
    with open("/proc/self/ns/net") as own, open(f"/run/netns/{namespace}") as other:
        enter(other)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"k0", IFF_TUN | IFF_NO_PI))
        enter(own)
    for args in (["addr", "add", f"10.77.0.{number}/24", "dev", "k0"], ["link", "set", "k0", "up"], ["link", "set", "lo", "up"]):
        ip("-n", namespace, *args)
    return device


class Network:
    def __init__(self, devices):
        self.devices, self.cut, self.blocked = devices, set(), set()
        self.delay, self.loss, self.dice = 0.0, 0.0, random.Random(1)
        self.waiting, self.count = [], 0

    def take(self, number):
        try:
            packet = os.read(self.devices[number], 65536)
        except BlockingIOError:
            return
        # IPv4 only: the version, then the last byte of the destination.
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return
        to = packet[19]
        is_open = to in self.devices and not {number, to} & self.cut and frozenset((number, to)) not in self.blocked
        if is_open and self.dice.random() >= self.loss:
            self.count += 1
            heapq.heappush(self.waiting, (time.monotonic() + self.delay, self.count, to, packet))

    def give(self):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, to, packet = heapq.heappop(self.waiting)
            try:
                os.write(self.devices[to], packet)
            except OSError:
                pass  # As a full queue does.

    def obey(self, command, *numbers):
        if command in ("cut", "join"):
            (self.cut.add if command == "cut" else self.cut.discard)(int(numbers[0]))
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
        by_descriptor = {device: number for number, device in self.devices.items()}
        while True:
            wait = max(0.0, self.waiting[0][0] - time.monotonic()) if self.waiting else None
            ready, _, _ = select.select([*by_descriptor, sys.stdin], [], [], wait)
            for descriptor in ready:
                if descriptor is sys.stdin:
                    line = os.read(0, 4096).decode().split()
                    if not line:
                        return
                    self.obey(*line)
                    print("done", flush=True)
                else:
                    self.take(by_descriptor[descriptor])
            self.give()


def main():
    name, hosts = sys.argv[1], range(1, int(sys.argv[2]) + 1)
    try:
        network = Network({number: host(name, number) for number in hosts})
        print("ready", flush=True)
        network.run()
    finally:
        for number in hosts:
            subprocess.run(["ip", "netns", "del", f"{name}-{number}"], stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
