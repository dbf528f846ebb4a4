import ssl
import sys

from aiohttp import web


async def hello(request):
    return web.Response(text=f"hello over {request.scheme}")


port, cert, key = sys.argv[1:]
app = web.Application()
app.add_routes([web.get("/", hello)])
ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
ssl_context.load_cert_chain(cert, key)
web.run_app(app, host="localhost", port=int(port), ssl_context=ssl_context)
