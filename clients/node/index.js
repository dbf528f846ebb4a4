'use strict';
// ssa: TLS as a service of the operating system, for Node. docs/node.md tells how to use it.

const { connect, accept } = require('./lib/connect');
const { Agent, connector } = require('./lib/agent');
const { Server, createServer } = require('./lib/server');
const { TLSSocket } = require('./lib/socket');
const { SSAError } = require('./lib/errors');

module.exports = { connect, accept, createServer, connector, Agent, Server, TLSSocket, SSAError };
