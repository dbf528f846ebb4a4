import sys

import urllib3

http = urllib3.PoolManager()
resp = http.request("GET", f"https://localhost:{sys.argv[1]}/hello", retries=False)
print(resp.status, resp.data)
