import asyncio
import sys

from tornado.httpclient import AsyncHTTPClient


async def main():
    response = await AsyncHTTPClient().fetch(f"https://localhost:{sys.argv[1]}/hello")
    print(response.code, response.body)


asyncio.run(main())
