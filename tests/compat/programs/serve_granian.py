import sys
from pathlib import Path

from granian import Granian


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"hello over {scope['scheme']}".encode()})


if __name__ == "__main__":
    port, cert, key = sys.argv[1:]
    target = f"{Path(__file__).stem}:app"
    Granian(target, port=int(port), interface="asgi", ssl_cert=Path(cert), ssl_key=Path(key)).serve()
