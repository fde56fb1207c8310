"""What a phone hears by multicast DNS, with another implementation than the server's: ears.py ADDRESS [DEAF]

Tells each change of a Balcony on the interface that has ADDRESS as one line of JSON: {"event": "found" | "changed" | "gone", "instance",
"txt" (its strings in their order), "host", "port", "addresses"}. A line "resolve NAME" on stdin is answered with {"event": "resolved",
"host", "addresses"}: asked the short way, from a port of its own, as the resolvers of phones do. A line "look INSTANCE" with what is known
of it by now: {"event": "looked", …}. DEAF is the address of an interface on
which nothing should be heard; what is, is told as {"event": "leak"}.
"""
import json
import socket
import struct
import sys
import threading
import time

import zeroconf
from zeroconf import const

SERVICE = "_balcony._tcp.local."
GROUP = ("224.0.0.251", 5353)
lock = threading.Lock()


def tell(**what):
    with lock:
        print(json.dumps(what), flush=True)


def strings(text):
    """The strings of a TXT record (RFC 1035, section 3.3.14)."""
    at = 0
    while at < len(text):
        length = text[at]
        yield text[at + 1:at + 1 + length].decode()
        at += 1 + length


class Ears:
    def add_service(self, ears, kind, name):
        self.tell("found", ears, kind, name)

    def update_service(self, ears, kind, name):
        self.tell("changed", ears, kind, name)

    def remove_service(self, ears, kind, name):
        tell(event="gone", instance=name)

    def tell(self, event, ears, kind, name):
        info = ears.get_service_info(kind, name, timeout=3000)
        if info is None:
            tell(event="unresolved", instance=name)
            return
        tell(event=event, instance=name, txt=list(strings(info.text)), host=info.server, port=info.port,
             addresses=sorted(info.parsed_addresses()))


def resolve(host, own):
    found = set()
    for kind in (const._TYPE_A, const._TYPE_AAAA):
        question = zeroconf.DNSOutgoing(const._FLAGS_QR_QUERY, multicast=False)
        question.add_question(zeroconf.DNSQuestion(host, kind, const._CLASS_IN))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
            asker.sendto(question.packets()[0], GROUP)
            asker.settimeout(1)
            until = time.monotonic() + 1
            while time.monotonic() < until:
                try:
                    answer = zeroconf.DNSIncoming(asker.recv(9000))
                except socket.timeout:
                    break
                addresses = [record for record in answer.answers if isinstance(record, zeroconf.DNSAddress)]
                found.update(socket.inet_ntop(socket.AF_INET if len(record.address) == 4 else socket.AF_INET6, record.address)
                             for record in addresses if record.name.lower() == host.lower())
                break
    tell(event="resolved", host=host, addresses=sorted(found))


def listen_where_nothing_is(address):
    deaf = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    deaf.setsockopt(socket.IPPROTO_IP, 49, 0)  # IP_MULTICAST_ALL: only the groups of this socket
    deaf.bind(GROUP)
    deaf.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4s", socket.inet_aton(GROUP[0]), socket.inet_aton(address)))
    while True:
        data, (sender, _) = deaf.recvfrom(9000)
        if sender != address:
            tell(event="leak", sender=sender, bytes=data.hex())


own = sys.argv[1]
if len(sys.argv) > 2:
    threading.Thread(target=listen_where_nothing_is, args=(sys.argv[2],), daemon=True).start()
ears = zeroconf.Zeroconf(interfaces=[own])
listener = Ears()
browser = zeroconf.ServiceBrowser(ears, SERVICE, listener)
tell(event="listening")
for line in sys.stdin:
    command, name = line.rstrip("\n").split(" ", 1)
    if command == "look":
        listener.tell("looked", ears, SERVICE, name)
    else:
        resolve(name, own)
ears.close()
