import ssl
import sys

import pymysql.cursors

connection = pymysql.connect(
    host="localhost", port=int(sys.argv[1]), user="me", password="secret", ssl=ssl.create_default_context()
)
with connection, connection.cursor() as cursor:
    cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
    print(cursor.fetchone())
