import asyncio
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"hello over {scope['scheme']}".encode()})


config = Config()
config.bind = [f"localhost:{sys.argv[1]}"]
config.certfile, config.keyfile = sys.argv[2:]
asyncio.run(serve(app, config))
