"""What a house has that requests alone do not meet: schemathesis loads this file (SCHEMATHESIS_HOOKS) and asks it before each call.

Requests made by chance know no stream, no device and no code, and hear 404 and 403 for ever. Every second one is given what exists, so that
the answers of success are judged as well. What the server counts by address or by device is asked from many addresses and by many devices,
so that a limit of ten in a minute does not end the test after ten requests.
"""

import itertools
import os
import secrets
import threading

import requests
import schemathesis
import urllib3.util.connection

BASE = os.environ["HOUSE_BASE"]
OWNER = os.environ["HOUSE_TOKEN"]
TALLY = os.environ["HOUSE_TALLY"]
# Limits of the server, with something to spare: starts of one device, and tries to pair from one address, both in a minute.
STARTS = 15
TRIES = 6
START = "/api/stream/start"
BRING = "/api/torrents/magnet"

lock = threading.RLock()
connect = urllib3.util.connection.create_connection
addresses = itertools.cycle(f"127.0.{street}.{number}" for street in range(20, 60) for number in range(1, 255) for _ in range(TRIES))


def from_another_address(address, timeout=None, source_address=None, socket_options=None):
    """All of 127.0.0.0/8 is this machine: each connection comes from a next one."""
    return connect(address, timeout, source_address or (next(addresses), 0), socket_options)


urllib3.util.connection.create_connection = from_another_address


def ask(method, path, token=OWNER, **more):
    """A call of our own, on a connection of its own. Where it fails, schemathesis shows that as an error of the test."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.request(method, BASE + path, headers=headers, timeout=10, **more)
    return answer.json() if answer.content else {}


def new_offer():
    return ask("POST", "/api/pairings", json={"person": "A neighbour"})


def new_device():
    """The answer to a device that has just come in: its token, and its id."""
    body = {"code": new_offer()["code"], "deviceName": f"Phone {secrets.token_hex(3)}", "platform": "test"}
    return ask("POST", "/api/pair", token=None, json=body)


def stream():
    """One that is there; nobody has its film, so it looks for it as long as the test runs."""
    there = [one["streamId"] for one in ask("GET", "/api/streams")["streams"]]
    return there[0] if there else ask("POST", START, token=new_device()["token"], json={"magnetLink": secrets.token_hex(20)})["streamId"]


def torrent():
    """A metainfo file of a torrent that nobody else has."""
    name = f"{secrets.token_hex(8)}.mkv".encode()
    info = b"d6:lengthi1000000e4:name%d:%s12:piece lengthi262144e6:pieces80:%se" % (len(name), name, secrets.token_bytes(80))
    return b"d8:announce31:udp://tracker.example:6969/tell4:info%se" % info


@schemathesis.serializer("application/x-bittorrent")
def as_it_is(context, value):
    return getattr(value, "data", value if isinstance(value, bytes) else str(value).encode())


class Starters:
    """Devices that take turns: each starts, or brings torrents, as often as it may."""

    token = None
    left = 0

    def turn(self):
        with lock:
            if self.left == 0:
                self.token, self.left = new_device()["token"], STARTS
            self.left -= 1
            return self.token


starters = Starters()
callers = itertools.count()


@schemathesis.auth(refresh_interval=None)
class Caller:
    """The owner asks, and now and then a phone that may do less; what is counted by device is asked by many."""

    phone = None

    def get(self, case, context):
        if case.operation.path in (START, BRING):
            return starters.turn()
        with lock:
            self.phone = self.phone or new_device()["token"]
        return self.phone if next(callers) % 8 == 0 else OWNER

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


# Codes as they are typed: right, and nearly right.
typed = itertools.cycle([str, lambda code: code[1:] + code[:1]])
IN_PATH = {
    "streamId": stream,
    "deviceId": lambda: new_device()["deviceId"],
    "personId": lambda: ask("GET", "/api/people")["people"][-1]["id"],
    "offerId": lambda: new_offer()["offerId"],
}
IN_BODY = {
    (START, "magnetLink"): lambda: secrets.token_hex(20),
    ("/api/pair", "code"): lambda: next(typed)(new_offer()["code"]),
}
turns = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    if next(turns) % 2:
        return
    with lock:
        for name in case.path_parameters or {}:
            if name in IN_PATH:
                case.path_parameters[name] = IN_PATH[name]()
        if case.operation.path == BRING:
            case.body = torrent()
        for (path, name), existing in IN_BODY.items():
            if case.operation.path == path and isinstance(case.body, dict):
                case.body[name] = existing()
                if path == "/api/pair":
                    # A code, and nothing that contradicts it.
                    case.body.pop("secret", None)
                    case.body.pop("offerId", None)


@schemathesis.hook
def after_call(context, case, response):
    with lock, open(TALLY, "a") as tally:
        tally.write(f"{case.method.upper()} {case.operation.path} {response.status_code}\n")
