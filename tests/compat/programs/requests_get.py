import sys

import requests

r = requests.get(f"https://localhost:{sys.argv[1]}/hello")
print(r.status_code, r.text)
