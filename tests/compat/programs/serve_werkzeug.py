import sys

from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response


@Request.application
def application(request):
    return Response(f"hello over {request.scheme}")


port, cert, key = sys.argv[1:]
run_simple("localhost", int(port), application, ssl_context=(cert, key))
