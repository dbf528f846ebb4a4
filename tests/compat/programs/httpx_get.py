import sys

import httpx

r = httpx.get(f"https://localhost:{sys.argv[1]}/hello")
print(r, r.text)
