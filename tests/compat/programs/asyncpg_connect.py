import asyncio
import ssl
import sys

import asyncpg


async def main():
    sslctx = ssl.create_default_context()
    con = await asyncpg.connect(user="me", host="localhost", port=int(sys.argv[1]), database="postgres", ssl=sslctx)
    print(await con.fetchrow("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    await con.close()


asyncio.run(main())
