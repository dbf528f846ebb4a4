import asyncio
import ssl
import sys

import tornado.httpserver
import tornado.web


class MainHandler(tornado.web.RequestHandler):
    def get(self):
        self.write(f"hello over {self.request.protocol}")


async def main():
    port, cert, key = sys.argv[1:]
    ssl_ctx = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ssl_ctx.load_cert_chain(cert, key)
    server = tornado.httpserver.HTTPServer(tornado.web.Application([("/", MainHandler)]), ssl_options=ssl_ctx)
    server.listen(int(port), "127.0.0.1")
    await asyncio.Event().wait()


asyncio.run(main())
