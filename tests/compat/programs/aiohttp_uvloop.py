import sys

import aiohttp
import uvloop


async def main():
    async with aiohttp.ClientSession() as session, session.get(f"https://localhost:{sys.argv[1]}/hello") as response:
        print("Status:", response.status)
        print("Body:", await response.text())


uvloop.run(main())
