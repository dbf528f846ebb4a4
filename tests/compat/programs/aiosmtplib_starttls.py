import asyncio
import sys
from email.message import EmailMessage

import aiosmtplib

message = EmailMessage()
message["From"] = "me@example.org"
message["To"] = "you@example.org"
message["Subject"] = "Hello World!"
message.set_content("Sent via aiosmtplib")

asyncio.run(
    aiosmtplib.send(
        message, hostname="localhost", port=int(sys.argv[1]), start_tls=True, username="me", password="secret"
    )
)
