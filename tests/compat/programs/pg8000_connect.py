import sys

import pg8000.native

con = pg8000.native.Connection(
    "me", host="localhost", port=int(sys.argv[1]), database="postgres", password="", ssl_context=True
)
print(con.run("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
con.close()
