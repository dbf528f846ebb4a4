import smtplib
import sys

with smtplib.SMTP("localhost", int(sys.argv[1])) as server:
    server.starttls()
    server.login("me", "secret")
    server.sendmail("me@example.org", "you@example.org", "Subject: hello\r\n\r\nhello\r\n")
