'use strict';
// node server.js PORT [CERTIFICATE KEY]: a web server. Without a certificate it serves with the administrator's, whose
// key it never sees.

const http = require('http');
const { createServer } = require('..');

const [port, cert, key] = process.argv.slice(2);
const web = http.createServer((request, response) => response.end(`hello by ${request.socket.getProtocol()}\n`));
const server = createServer({ cert, key, ALPNProtocols: ['http/1.1'] }, (socket) => web.emit('connection', socket));
server.on('error', (error) => {
  console.error(`server.js: ${error.message}`);
  process.exitCode = 1;
});
server.listen(port);
