import sys

from twisted.internet import ssl
from twisted.internet.task import react
from twisted.python.filepath import FilePath
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, readBody


async def main(reactor):
    authority = ssl.Certificate.loadPEM(FilePath(sys.argv[2]).getContent())
    agent = Agent(reactor, BrowserLikePolicyForHTTPS(ssl.trustRootFromCertificates([authority])))
    response = await agent.request(b"GET", f"https://localhost:{sys.argv[1]}/hello".encode())
    print(response.code, await readBody(response))


react(lambda reactor: __import__("twisted.internet.defer").internet.defer.ensureDeferred(main(reactor)))
