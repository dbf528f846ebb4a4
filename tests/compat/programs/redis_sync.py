import sys

import redis

r = redis.Redis(host="localhost", port=int(sys.argv[1]), ssl=True)
r.set("foo", "bar")
print(r.get("foo"))
