import io
import sys

import pycurl

buffer = io.BytesIO()
c = pycurl.Curl()
c.setopt(c.URL, f"https://localhost:{sys.argv[1]}/hello")
c.setopt(c.WRITEDATA, buffer)
c.setopt(c.CAINFO, sys.argv[2])
c.perform()
c.close()
print(buffer.getvalue())
