"""Seeds several files with one libtorrent, each as a torrent of its own, until stdin is closed: seeds.py FILE… prints {"port", "hashes"}."""
import json
import os
import sys
import time

import libtorrent as lt

session = lt.session({
    "listen_interfaces": "127.0.0.1:0", "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True, "connections_limit": 2000, "unchoke_slots_limit": -1, "active_seeds": -1, "active_limit": -1,
    "dont_count_slow_torrents": True, "alert_mask": 0, "user_agent": "test seeder",
})
hashes = []
for path in sys.argv[1:]:
    storage = lt.file_storage()
    lt.add_files(storage, path)
    made = lt.create_torrent(storage, 256 << 10, lt.create_torrent.v1_only if hasattr(lt.create_torrent, "v1_only") else 64)
    lt.set_piece_hashes(made, os.path.dirname(path))
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(lt.bdecode(lt.bencode(made.generate())))
    params.save_path = os.path.dirname(path)
    params.flags = (params.flags | lt.torrent_flags.seed_mode) & ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
    session.add_torrent(params)
    hashes.append(str(params.ti.info_hash()))
while session.listen_port() == 0:
    time.sleep(0.02)
print(json.dumps({"port": session.listen_port(), "hashes": hashes}), flush=True)
sys.stdin.read()
