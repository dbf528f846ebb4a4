import sys

import psycopg

with psycopg.connect(
    f"host=localhost port={sys.argv[1]} dbname=postgres user=me sslmode=verify-full sslrootcert={sys.argv[2]}"
) as conn:
    print(conn.execute("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetchone())
