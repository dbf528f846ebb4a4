import imaplib
import sys

with imaplib.IMAP4_SSL("localhost", int(sys.argv[1])) as M:
    M.login("me", "secret")
    M.select()
    print(M.search(None, "ALL"))
