'use strict';
// A listener: a net.Server whose connections are TLS sockets when they are told of.

const net = require('net');
const { once } = require('events');
const { ask } = require('./channel');
const { accept } = require('./connect');
const { forServer, openFiles, closeFiles } = require('./options');

/** Emits `secureConnection` with a TLSSocket, and `tlsClientError` for a client whose handshake failed. */
class Server extends net.Server {
  #options;
  #closed = false;

  constructor(options = {}, listener = undefined) {
    super({ ...options, pauseOnConnect: true, allowHalfOpen: true });
    forServer(options); // what cannot be done is refused here
    this.#options = options;
    if (listener) this.on('secureConnection', listener);
    this.on('connection', (tcp) => this.#serve(tcp));
  }

  #serve(tcp) {
    const socket = accept(tcp, this.#options);
    const refused = (error) => this.emit('tlsClientError', error, socket);
    socket.once('error', refused);
    socket.once('secure', () => {
      socket.off('error', refused);
      this.emit('secureConnection', socket);
    });
  }

  /** Listen, once ssad has said that it would serve with these options. */
  listen(...how) {
    this.#closed = false;
    this.#check().then(() => this.#closed || super.listen(...how), (error) => this.emit('error', error));
    return this;
  }

  close(callback) {
    this.#closed = true;
    return super.close(callback);
  }

  /** ssad says whether it would serve so when it is asked to listen: on a socket that nobody knows of, for a moment. */
  async #check() {
    const files = openFiles(this.#options);
    const nowhere = net.createServer().listen({ host: '127.0.0.1', port: 0, exclusive: true });
    try {
      await once(nowhere, 'listening');
      await ask('listen', forServer(this.#options), [nowhere._handle.fd, ...files.map((file) => file.fd)]);
    } finally {
      nowhere.close();
      closeFiles(files);
    }
  }
}

const createServer = (options, listener) => new Server(options, listener);

module.exports = { Server, createServer };
