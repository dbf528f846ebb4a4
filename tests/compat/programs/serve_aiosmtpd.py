import ssl
import sys
import threading

from aiosmtpd.controller import Controller


class ExampleHandler:
    async def handle_DATA(self, server, session, envelope):
        return "250 Message accepted for delivery"


port, cert, key = sys.argv[1:]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(cert, key)
controller = Controller(ExampleHandler(), hostname="localhost", port=int(port), tls_context=context)
controller.start()
threading.Event().wait()
