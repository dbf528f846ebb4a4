import ssl
import sys

import truststore
import urllib3

ctx = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
http = urllib3.PoolManager(ssl_context=ctx)
resp = http.request("GET", f"https://localhost:{sys.argv[1]}/hello", retries=False)
print(resp.status, resp.data)
