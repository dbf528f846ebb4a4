import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"hello over {scope['scheme']}".encode()})


config = Config()
config.bind = [f"localhost:{sys.argv[1]}"]
config.certfile, config.keyfile = sys.argv[2:]
trio.run(serve, app, config)
