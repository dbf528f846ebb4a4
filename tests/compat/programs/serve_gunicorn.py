import sys

from gunicorn.app.base import BaseApplication


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello over {environ['wsgi.url_scheme']}".encode()]


class StandaloneApplication(BaseApplication):
    def load_config(self):
        port, cert, key = sys.argv[1:]
        for name, value in {"bind": f"127.0.0.1:{port}", "certfile": cert, "keyfile": key}.items():
            self.cfg.set(name, value)

    def load(self):
        return app


StandaloneApplication().run()
