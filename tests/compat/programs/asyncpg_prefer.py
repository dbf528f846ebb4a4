import asyncio
import sys

import asyncpg


async def main():
    con = await asyncpg.connect(user="me", host="localhost", port=int(sys.argv[1]), database="postgres")
    print(await con.fetchrow("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    await con.close()


asyncio.run(main())
