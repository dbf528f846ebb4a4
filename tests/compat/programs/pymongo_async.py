import asyncio
import sys

from pymongo import AsyncMongoClient
from pymongo.server_api import ServerApi


async def main():
    uri = f"mongodb://localhost:{sys.argv[1]}/?tls=true&serverSelectionTimeoutMS=4000"
    client = AsyncMongoClient(uri, server_api=ServerApi("1"))
    print(await client.admin.command("ping"))
    await client.close()


asyncio.run(main())
