'use strict';
// HTTP: an agent for https.request, and what undici's Agent calls for a connection.

const https = require('https');
const { connect } = require('./connect');
const { failure } = require('./errors');

/** An https.Agent whose connections are ssa's. Its options are those of https.Agent and of `connect`. */
class Agent extends https.Agent {
  createConnection(options) {
    const { path, socketPath, ...ours } = options; // the request's path; net.connect would take it for a socket's
    if (socketPath) throw failure('NO_COUNTERPART', 'socketPath: ssa makes TLS on TCP connections');
    return connect({ ...ours, servername: options.servername || options.host });
  }
}

/** A function for `new undici.Agent({ connect })`, by which fetch connects. */
function connector(options = {}) {
  return ({ hostname, port, servername, localAddress, protocol }, callback) => {
    const to = { host: hostname.replace(/^\[(.*)\]$/, '$1'), port: port || 443, localAddress: localAddress ?? undefined };
    const socket = connect({ ...to, servername: servername || to.host, ...options });
    const failed = (error) => callback(error, null);
    socket.once('error', failed);
    socket.once('secureConnect', () => {
      socket.off('error', failed);
      callback(null, socket);
    });
    return socket;
  };
}

module.exports = { Agent, connector };
