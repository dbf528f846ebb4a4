import asyncio
import ssl
import sys

import aiomysql


async def main():
    conn = await aiomysql.connect(
        host="localhost", port=int(sys.argv[1]), user="me", password="secret", ssl=ssl.create_default_context()
    )
    cur = await conn.cursor()
    await cur.execute("SHOW STATUS LIKE 'Ssl_version'")
    print(await cur.fetchone())
    await cur.close()
    conn.close()


asyncio.run(main())
