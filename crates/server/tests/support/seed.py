"""Seeds one file or folder with libtorrent, on loopback or where HOST says, until stdin is closed. A line there is how fast it may send from now on.

usage: seed.py PATH TORRENT_FILE PIECE_LENGTH PORT [HOST]

Bytes a second; 0: as fast as it can. Makes TORRENT_FILE if it is not there. Prints "ready INFO_HASH PORT" when it listens. Talks to nobody by itself.
"""
import os
import sys
import time

import libtorrent as lt

path, torrent_file, piece_length, port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
host = sys.argv[5] if len(sys.argv) > 5 else "127.0.0.1"
if not os.path.exists(torrent_file):
    storage = lt.file_storage()
    lt.add_files(storage, path)
    made = lt.create_torrent(storage, piece_length, lt.create_torrent.v1_only if hasattr(lt.create_torrent, "v1_only") else 64)
    lt.set_piece_hashes(made, os.path.dirname(path))
    with open(torrent_file, "wb") as out:
        out.write(lt.bencode(made.generate()))

session = lt.session({
    "listen_interfaces": "%s:%d" % (host, port),
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True, "connections_limit": 500, "unchoke_slots_limit": -1,
    "send_buffer_watermark": 8 << 20, "max_out_request_queue": 2000, "max_allowed_in_request_queue": 4000,
    "dont_count_slow_torrents": True, "max_retry_port_bind": 0, "seeding_outgoing_connections": False,
    "alert_mask": 0, "user_agent": "test seeder",
})
params = lt.add_torrent_params()
params.ti = lt.torrent_info(torrent_file)
params.save_path = os.path.dirname(path)
params.flags = (params.flags | lt.torrent_flags.seed_mode) & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
torrent = session.add_torrent(params)
for _ in range(200):
    if session.is_listening() and session.listen_port() != 0:
        break
    time.sleep(0.02)
else:
    sys.exit("it does not listen")
print("ready", params.ti.info_hash(), session.listen_port(), flush=True)
for line in sys.stdin:
    # The limits of the session do not count for peers on loopback; those of a torrent do.
    torrent.set_upload_limit(int(line))
