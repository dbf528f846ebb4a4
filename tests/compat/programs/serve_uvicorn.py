import sys

import uvicorn


async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"hello over {scope['scheme']}".encode()})


port, cert, key = sys.argv[1:]
uvicorn.run(app, port=int(port), lifespan="off", ssl_certfile=cert, ssl_keyfile=key)
