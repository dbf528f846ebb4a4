import sys
import urllib.request

with urllib.request.urlopen(f"https://localhost:{sys.argv[1]}/hello") as response:
    print(response.read())
