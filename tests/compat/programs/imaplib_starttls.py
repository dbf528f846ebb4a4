import imaplib
import sys

with imaplib.IMAP4("localhost", int(sys.argv[1])) as M:
    M.starttls()
    M.login("me", "secret")
    M.select()
    print(M.search(None, "ALL"))
