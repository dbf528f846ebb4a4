import sys
from ftplib import FTP_TLS

ftps = FTP_TLS()
ftps.connect("localhost", int(sys.argv[1]))
ftps.login()
ftps.prot_p()
ftps.retrlines("LIST")
ftps.quit()
