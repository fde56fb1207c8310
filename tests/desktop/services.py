"""Stands in for a service of a desktop session on the session bus, tells what it was asked, and does what it is told.

usage: services.py notifications | session | login

Prints a line of JSON when its name is owned ({"ready": NAME}) and for everything that happens. Ends when stdin is closed.
  notifications  org.freedesktop.Notifications. Told "ID ACTION", it invokes an action of a notification.
  session        org.gnome.SessionManager. Told "end", it ends the session the way a logout does.
  login          org.freedesktop.login1 of the system bus, on whichever bus DBUS_SESSION_BUS_ADDRESS names: inhibitor locks.
"""
import json
import os
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib

dbus.mainloop.glib.DBusGMainLoop(set_as_default=True)
loop = GLib.MainLoop()


def tell(**what):
    print(json.dumps(what), flush=True)


class Notifications(dbus.service.Object):
    NAME, PATH = "org.freedesktop.Notifications", "/org/freedesktop/Notifications"
    count = 0

    @dbus.service.method(NAME, in_signature="susssasa{sv}i", out_signature="u")
    def Notify(self, program, replaces, icon, summary, body, actions, hints, timeout):
        self.count += 1
        pairs = dict(zip(map(str, actions[::2]), map(str, actions[1::2])))
        tell(id=self.count, summary=str(summary), body=str(body), actions=pairs)
        return self.count

    @dbus.service.method(NAME, out_signature="as")
    def GetCapabilities(self):
        return ["actions", "body"]

    @dbus.service.method(NAME, out_signature="ssss")
    def GetServerInformation(self):
        return ("test", "test", "1", "1.2")

    @dbus.service.method(NAME, in_signature="u")
    def CloseNotification(self, number):
        self.NotificationClosed(number, 3)

    @dbus.service.signal(NAME, signature="us")
    def ActionInvoked(self, number, action):
        pass

    @dbus.service.signal(NAME, signature="uu")
    def NotificationClosed(self, number, reason):
        pass

    def told(self, line):
        number, action = line.split()
        self.ActionInvoked(dbus.UInt32(number), action)
        self.NotificationClosed(dbus.UInt32(number), dbus.UInt32(2))


class Client(dbus.service.Object):
    NAME = "org.gnome.SessionManager.ClientPrivate"

    @dbus.service.method(NAME, in_signature="bs")
    def EndSessionResponse(self, is_ok, reason):
        tell(answered=bool(is_ok))
        # Everybody agreed: it ends.
        self.EndSession(dbus.UInt32(0))

    @dbus.service.signal(NAME, signature="u")
    def QueryEndSession(self, flags):
        pass

    @dbus.service.signal(NAME, signature="u")
    def EndSession(self, flags):
        pass


class Session(dbus.service.Object):
    NAME, PATH = "org.gnome.SessionManager", "/org/gnome/SessionManager"
    client = None

    @dbus.service.method(NAME, in_signature="ss", out_signature="o")
    def RegisterClient(self, program, start):
        path = self.PATH + "/Client1"
        if self.client is None:
            self.client = Client(bus, path)
        tell(registered=str(program))
        return dbus.ObjectPath(path)

    def told(self, line):
        self.client.QueryEndSession(dbus.UInt32(0))


class Login(dbus.service.Object):
    NAME, PATH = "org.freedesktop.login1", "/org/freedesktop/login1"

    @dbus.service.method("org.freedesktop.login1.Manager", in_signature="ssss", out_signature="h")
    def Inhibit(self, what, who, why, mode):
        ours, theirs = os.pipe()
        tell(inhibited=str(what), who=str(who), why=str(why), mode=str(mode))
        GLib.io_add_watch(ours, GLib.IO_HUP, lambda *_: tell(released=str(what)) or os.close(ours))
        handed = dbus.types.UnixFd(theirs)
        os.close(theirs)
        return handed


def hear(*_):
    line = sys.stdin.readline()
    if not line:
        loop.quit()
        return False
    service.told(line.strip())
    return True


bus = dbus.SessionBus()
kind = {"notifications": Notifications, "session": Session, "login": Login}[sys.argv[1]]
name = dbus.service.BusName(kind.NAME, bus, do_not_queue=True)
service = kind(bus, kind.PATH)
GLib.io_add_watch(sys.stdin.fileno(), GLib.IO_IN | GLib.IO_HUP, hear)
tell(ready=kind.NAME)
loop.run()
