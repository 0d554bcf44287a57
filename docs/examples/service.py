# SPDX-License-Identifier: MIT
"""
asyncio: a service in one event loop, without a thread, for clients that are processes of their own.

It answers requests, publishes what it has done to whoever subscribes, and ends when its clients have. A client asks with
call(), which comes back at once when the service dies.

    $ python service.py
    client 0: [0, 1, 4]
    client 1: [9, 16, 25]
    seen by the subscriber: 6 requests
"""

import asyncio
import subprocess
import sys

import xidata


async def serve(requests, news):
    async for request in requests:  # until the channel is closed
        with request:  # one that is left without a reply tells its caller so
            request.reply(request.value**2)
        await news.asend({"asked": request.value})
    news.close()


async def subscribe(news):
    return len([item async for item in news])


async def run(client, requests):
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, str(client), stdout=subprocess.PIPE)
    out, _ = await process.communicate()
    return out.decode()


async def main():
    requests = xidata.channel("squares", recv_only=True)
    news = xidata.channel("squares.news", mode="broadcast", send_only=True)
    seen = asyncio.create_task(subscribe(xidata.channel("squares.news", mode="broadcast", recv_only=True)))
    service = asyncio.create_task(serve(requests, news))
    for line in await asyncio.gather(*[run(client, requests) for client in range(2)]):
        print(line, end="")
    requests.close()
    await service
    print("seen by the subscriber:", await seen, "requests")


def ask(client):
    with xidata.channel("squares", send_only=True) as squares:
        print("client %d:" % client, [squares.call(3 * client + n, timeout=30) for n in range(3)])


if __name__ == "__main__":
    ask(int(sys.argv[1])) if sys.argv[1:] else asyncio.run(main())
