import smtplib
import sys

with smtplib.SMTP_SSL("localhost", int(sys.argv[1])) as server:
    server.login("me", "secret")
    server.sendmail("me@example.org", "you@example.org", "Subject: hello\r\n\r\nhello\r\n")
