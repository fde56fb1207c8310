"""A line to a peer that is exactly so fast and perfectly smooth: line.py TARGET_PORT BYTES_PER_SECOND

Prints its own port. To each line on its input it answers how many bytes it has brought down so far. Ends with its input.
All connections share one line. libtorrent's own limit comes in bursts, which would be measured instead of us.
"""
import asyncio
import socket
import sys

target, rate = int(sys.argv[1]), float(sys.argv[2])
CHUNK = 8 << 10
BUFFER = 64 << 10
# A wake-up that comes late may be made up for within this time, else the line would be slower than it says.
CATCH_UP = 0.02
free_at = 0.0
brought = 0


async def up(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def down(reader, writer):
    global free_at, brought
    loop = asyncio.get_running_loop()
    while data := await reader.read(CHUNK):
        free_at = max(free_at, loop.time() - CATCH_UP) + len(data) / rate
        await asyncio.sleep(max(0.0, free_at - loop.time()))
        brought += len(data)
        writer.write(data)
        await writer.drain()
    writer.close()


async def connection(reader, writer):
    try:
        # What waits, waits at the seeder and not in the buffers on the way, as it does on a real line.
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        far.setblocking(False)
        await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", target))
        there, away = await asyncio.open_connection(sock=far, limit=CHUNK)
        for end in (writer, away):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        writer.transport.set_write_buffer_limits(high=CHUNK)
        await asyncio.gather(up(reader, away), down(there, writer))
    except (ConnectionError, OSError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(brought, flush=True)


asyncio.run(main())
