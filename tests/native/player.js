'use strict';
// Plays cases of conformance.json by clients/node, as player.py does by Python's libraries.

const fs = require('fs');
const net = require('net');
const path = require('path');
const readline = require('readline');
const { once } = require('events');

const ssa = require(path.join(__dirname, '..', '..', 'clients', 'node'));

const OPTIONS = {
  TLS_REMOTE_HOSTNAME: 'servername', TLS_ALPN: 'ALPNProtocols', TLS_TRUSTED_PEER_CERTIFICATES: 'ca',
  TLS_CERTIFICATE_CHAIN: 'cert', TLS_PRIVATE_KEY: 'key', TLS_VERSION_MIN: 'minVersion', TLS_SESSION_TTL: 'sessionTtl',
};
const INFO = {
  TLS_VERSION_CONN: (socket) => socket.getProtocol(),
  TLS_CHOSEN_CIPHER: (socket) => socket.getCipher().name,
  TLS_ALPN: (socket) => socket.alpnProtocol || '',
  TLS_HOSTNAME: (socket) => socket.servername ?? '',
  TLS_PEER_IDENTITY: (socket) => socket.getPeerIdentity(),
  TLS_RESUMED_SESSION: (socket) => (socket.isSessionReused() ? 1 : 0),
};
const NUMBERS = { 'TLSv1.2': 771, 'TLSv1.3': 772 };

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (words) => process.stdout.write(`${JSON.stringify(words)}\n`);
const lacks = (call) => ({ lacks: call });
const pattern = (count) => Buffer.from(Array.from({ length: count }, (_, at) => at % 256));

/** Data of the socket, at most so many bytes; empty at the end. What destroys the socket is thrown. */
async function taken(held, size) {
  const { socket } = held;
  for (;;) {
    if (held.error) throw held.error;
    const data = socket.read(Math.min(size, socket.readableLength || 1));
    if (data) return data;
    if (socket.readableEnded || socket.destroyed) return Buffer.alloc(0);
    await new Promise((resolve) => {
      for (const event of ['readable', 'end', 'close', 'error']) socket.once(event, resolve);
    });
  }
}

class Player {
  constructor() {
    this.named = {};
  }

  async play(call, ...args) {
    if (typeof this[call] !== 'function') return lacks(call);
    try {
      return (await this[call](...args)) ?? null;
    } catch (error) {
      if (error.code === undefined) throw error;
      return { errno: error.code };
    }
  }

  live(name) {
    const held = this.named[name];
    if (held.socket) return held;
    throw Object.assign(new Error('it is not connected'), { code: 'ENOTCONN' });
  }

  socket(name) {
    this.named[name] = { options: {} };
  }

  async set(name, option, value) {
    const held = this.named[name];
    if (option === 'TLS_UPGRADE' && held.plain) {
      await this.started(held, ssa.connect({ socket: held.plain, ...held.options }), 'secureConnect');
      held.plain = null;
      return null;
    }
    if (held.socket || held.error || !OPTIONS[option]) return lacks('set');
    held.options[OPTIONS[option]] = option === 'TLS_ALPN' ? [...(held.options.ALPNProtocols ?? []), ...value.split(',')] : value;
    return null;
  }

  get(name, option) {
    if (!INFO[option] || (OPTIONS[option] && !this.named[name].socket)) return lacks('get');
    return INFO[option](this.live(name).socket);
  }

  number(name, option) {
    const value = this.get(name, option);
    return NUMBERS[value] ?? value;
  }

  async started(held, socket, event) {
    held.error = null;
    socket.on('error', (error) => { held.error = error; });
    await once(socket, event);
    held.socket = socket;
  }

  async connect(name, host, port) {
    const held = this.named[name];
    if (held.socket || held.server || (held.error && held.error.code !== 'ECONNREFUSED')) return lacks('connect');
    await this.started(held, ssa.connect({ host, port, allowHalfOpen: true, ...held.options }), 'secureConnect');
    return null;
  }

  async bare(name, host, port) {
    this.socket(name);
    await this.connect(name, host, port);
  }

  async plain(name, host, port) {
    this.socket(name);
    this.named[name].plain = net.connect({ host, port });
    await once(this.named[name].plain, 'connect');
  }

  async send(name, text) {
    const { socket, error } = this.live(name);
    if (error) throw error;
    if (socket.writableEnded) return { errno: 'EPIPE' }; // Node would destroy the socket for such a mistake
    await new Promise((resolve, reject) => { socket.write(text, (failed) => (failed ? reject(failed) : resolve())); });
    return text.length;
  }

  async write(name, text) {
    return this.send(name, text);
  }

  async sendall(name, count) {
    await this.send(name, pattern(count));
  }

  async sendfile(name, file, offset = 0) {
    return this.send(name, fs.readFileSync(file).subarray(offset));
  }

  async recv(name, size) {
    return (await taken(this.live(name), size)).toString('latin1');
  }

  async some(name, count) {
    const parts = [];
    for (let size = 0, data; size < count && (data = await taken(this.live(name), count - size)).length; size += data.length) {
      parts.push(data);
    }
    return Buffer.concat(parts);
  }

  async recv_count(name, count) {
    const got = await this.some(name, count);
    return [got.length, got.equals(pattern(got.length))];
  }

  async gather(name, count) {
    return (await this.some(name, count)).toString('latin1');
  }

  async shutdown(name) {
    const { socket } = this.live(name);
    await new Promise((resolve) => { socket.end(resolve); });
  }

  async close(name) {
    const held = this.named[name];
    delete this.named[name];
    if (held.server) held.server.close();
    if (!held.socket || held.socket.destroyed) return;
    held.socket.destroy();
    await once(held.socket, 'close');
  }

  peername(name) {
    return this.live(name).socket.remoteAddress;
  }

  bind(name, host, port) {
    this.named[name].address = { host, port };
  }

  async listen(name) {
    const held = this.named[name];
    if (!held.address) return lacks('listen');
    const server = ssa.createServer({ ...held.options, allowHalfOpen: true });
    held.accepted = once(server, 'secureConnection');
    server.listen(held.address);
    await once(server, 'listening');
    held.server = server;
    return null;
  }

  async port(name) {
    tell({ port: this.named[name].server.address().port });
    await lines.next();
  }

  async accept(name, accepted) {
    if (!this.named[name].accepted) return lacks('accept');
    const [socket] = await this.named[name].accepted;
    this.named[accepted] = { socket, error: null };
    socket.on('error', (error) => { this.named[accepted].error = error; });
    return socket.remoteAddress;
  }
}

async function main() {
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const player = new Player();
    const results = [];
    for (const step of JSON.parse(line.value)) results.push(await player.play(...step));
    tell({ results });
  }
  process.exit(0);
}

main();
