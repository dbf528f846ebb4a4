from gevent import monkey

monkey.patch_all()

import sys
import urllib.request

import gevent

job = gevent.spawn(urllib.request.urlopen, f"https://localhost:{sys.argv[1]}/hello")
job.join()
print(job.get().read())
