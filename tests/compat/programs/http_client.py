import http.client
import sys

connection = http.client.HTTPSConnection("localhost", int(sys.argv[1]))
connection.request("GET", "/hello")
response = connection.getresponse()
print(response.status, response.reason, response.read())
