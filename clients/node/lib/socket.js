'use strict';
// A TLS socket: a net.Socket on the stream that ssad relays.
//
// It is there at once, on a number whose open file is replaced when the handshake is done: libuv looks at no descriptor
// before the first read or write, and those wait until then. The end of a relayed stream says too little, so ssad is
// asked how the peer's half has ended, and told that ours ends in order (docs/library.md).

const net = require('net');
const { X509Certificate } = require('crypto');
const addon = require('./addon');
const { ask, tell, PATIENCE } = require('./channel');
const { SSAError, failure, systemFailure, NUMBERS } = require('./errors');
const { ALERTS } = require('./tables');

const STATE = Symbol('state'); // net.Socket's constructor calls _read, before a private field could be there
const WAITS = Symbol('what waits for the handshake');
const CUT = 'the connection was cut: its end came without TLS\'s close_notify';
const LOST = ['ECONNRESET', 'EPIPE'];

/** The error of a stream's end, as ssad has it; null: it ended in order. */
function endError(ended) {
  if (ended === 'close_notify') return null;
  if (ended === undefined || ended === 'truncated') return new SSAError(CUT, { code: 'ECONNABORTED', whoseFault: 'peer' });
  if (ALERTS.includes(ended) || ended.startsWith('alert_')) {
    return new SSAError(`the peer ended the connection with the alert ${ended}`, { code: 'EPROTO', alert: ended, whoseFault: 'peer' });
  }
  const code = NUMBERS.has(ended) ? ended : 'EIO';
  return new SSAError(`the connection has failed: ${ended}`, { code, whoseFault: 'network' });
}

async function askHowItEnded(fd) {
  try {
    return endError((await ask('describe', {}, [fd], PATIENCE)).ended);
  } catch (error) {
    return new SSAError(`the ssad that relayed the connection has gone: ${error.message}`, { code: 'ECONNABORTED' });
  }
}

function certificates(chain) {
  const found = [];
  for (let rest = chain ?? Buffer.alloc(0); rest.length;) {
    const certificate = new X509Certificate(rest); // it reads the first of them
    found.push(certificate);
    rest = rest.subarray(certificate.raw.length);
  }
  return found;
}

class TLSSocket extends net.Socket {
  /** Not for programs: `connect`, `accept` and `createServer` make such sockets. */
  constructor({ allowHalfOpen = false, isServer = false } = {}) {
    const fd = addon.place();
    super(fd < 0 ? { allowHalfOpen } : { fd, readable: true, writable: true, allowHalfOpen });
    this[STATE] = { live: false, fd, tcp: null, told: {}, chain: null, endSaid: false, channel: null };
    this.connecting = true;
    this.encrypted = true;
    this.authorized = false;
    this.authorizationError = null;
    this.alpnProtocol = false;
    this.servername = null;
    this.isServer = isServer;
    if (fd < 0) process.nextTick(() => this.destroy(systemFailure(-fd, 'no socket can be made')));
  }

  // --- for connect.js ---

  /** The conversation with ssad, which is closed where the socket is destroyed. */
  _speakBy(channel) {
    this[STATE].channel = channel;
  }

  /** The TCP connection, which getpeername(2) and the options of TCP are asked of. It ends with this socket. */
  _stand(tcp) {
    this[STATE].tcp = tcp;
  }

  /** The handshake is done: `fd` is the stream that ssad relays. */
  _live(reply, fd) {
    const state = this[STATE];
    const failed = addon.put(fd, state.fd);
    if (failed < 0) {
      addon.close(fd);
      throw systemFailure(-failed, 'the socket cannot be put on its number');
    }
    Object.assign(state, { live: true, told: reply, channel: null });
    this.connecting = false;
    this.alpnProtocol = reply.TLS_ALPN?.[0] ?? false;
    this.servername = reply.TLS_HOSTNAME ?? null;
    this.authorized = Boolean(reply.TLS_PEER_IDENTITY);
    const waits = this[WAITS] ?? [];
    delete this[WAITS];
    for (const act of waits) act();
  }

  // --- what waits for the handshake: reading, writing, ending ---

  /** Do it when the handshake is done. */
  _whenLive(act) {
    if (this[STATE]?.live) act();
    else (this[WAITS] ??= []).push(act);
  }

  _read(size) {
    this._whenLive(() => super._read(size));
  }

  _write(chunk, encoding, callback) {
    this._whenLive(() => super._write(chunk, encoding, callback));
  }

  _writev(chunks, callback) {
    this._whenLive(() => super._writev(chunks, callback));
  }

  /** `end()`: close_notify behind the last byte. */
  _final(callback) {
    this._whenLive(() => super._final((error) => {
      if (!error && !this.destroyed) this.#sayEnd({});
      callback(error);
    }));
  }

  #sayEnd(attributes) {
    const state = this[STATE];
    if (!state.live || state.endSaid) return;
    state.endSaid = true;
    if (!attributes.abort) addon.shutdown(state.fd);
    tell('close', attributes, state.fd);
  }

  // --- the end of the peer's half ---

  push(chunk, encoding) {
    if (chunk !== null || !this[STATE].live) return super.push(chunk, encoding);
    this.#end();
    return false;
  }

  async #end() {
    const error = await askHowItEnded(this[STATE].fd);
    if (this.destroyed) return;
    if (error) {
      this.destroy(error);
      return;
    }
    super.push(null);
    this.read(0);
  }

  /** Nothing unsent, and no error: the peer is told that the stream ends in order. Else it sees that it was cut. */
  _destroy(error, callback) {
    const state = this[STATE];
    delete this[WAITS];
    state.channel?.close(); // ssad gives the handshake up
    if (error && LOST.includes(error.code) && state.live && !(error instanceof SSAError)) {
      askHowItEnded(state.fd).then((better) => this.#release(better ?? error, callback));
      return;
    }
    if (!error && !this.writableLength) this.#sayEnd({});
    this.#release(error, callback);
  }

  #release(error, callback) {
    this[STATE].tcp?.destroy();
    super._destroy(error, callback);
  }

  /** Reset the connection: nothing more is said. */
  resetAndDestroy() {
    this.#sayEnd({ abort: 1 });
    return this.destroy();
  }

  // --- what is known of the connection ---

  #certificates() {
    const state = this[STATE];
    return (state.chain ??= certificates(state.told.TLS_PEER_CERTIFICATE_CHAIN));
  }

  /** The peer's certificate, as of tls.TLSSocket; {} where it sent none. */
  getPeerCertificate(detailed = false) {
    const made = this.#certificates().map((certificate) => certificate.toLegacyObject());
    if (detailed) made.forEach((certificate, at) => { certificate.issuerCertificate = made[at + 1] ?? certificate; });
    return made[0] ?? {};
  }

  getPeerX509Certificate() {
    return this.#certificates()[0];
  }

  /** The certificates that the peer has sent, its own first, as PEM. */
  getPeerCertificateChain() {
    return this.#certificates().map((certificate) => certificate.toString()).join('');
  }

  getPeerIdentity() {
    return this[STATE].told.TLS_PEER_IDENTITY ?? '';
  }

  getProtocol() {
    return this[STATE].told.TLS_VERSION_CONN ?? null;
  }

  getCipher() {
    const { TLS_CHOSEN_CIPHER: name, TLS_VERSION_CONN: version } = this[STATE].told;
    return name && { name, standardName: name, version };
  }

  isSessionReused() {
    return this[STATE].told.TLS_RESUMED_SESSION === 1;
  }

  get remoteAddress() { return this[STATE]?.tcp?.remoteAddress; }

  get remotePort() { return this[STATE]?.tcp?.remotePort; }

  get remoteFamily() { return this[STATE]?.tcp?.remoteFamily; }

  get localAddress() { return this[STATE]?.tcp?.localAddress; }

  get localPort() { return this[STATE]?.tcp?.localPort; }

  get localFamily() { return this[STATE]?.tcp?.localFamily; }

  address() { return this[STATE]?.tcp?.address() ?? {}; }

  setNoDelay(on) {
    this._whenLive(() => this[STATE].tcp.setNoDelay(on));
    return this;
  }

  setKeepAlive(...how) {
    this._whenLive(() => this[STATE].tcp.setKeepAlive(...how));
    return this;
  }
}

// What tls.TLSSocket has and ssa does not: refused, as a program that calls it counts on it.
const NOT_HERE = [
  'renegotiate', 'setSession', 'getSession', 'getTLSTicket', 'exportKeyingMaterial', 'getFinished', 'getPeerFinished',
  'getEphemeralKeyInfo', 'getSharedSigalgs', 'getCertificate', 'setKeyCert', 'setMaxSendFragment', 'setServername',
];
for (const name of NOT_HERE) {
  TLSSocket.prototype[name] = function notHere() {
    throw failure('NO_COUNTERPART', `${name}: the keys and sessions are ssad's`);
  };
}

module.exports = { TLSSocket };
