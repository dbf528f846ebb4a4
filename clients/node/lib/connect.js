'use strict';
// connect and accept: what is done, step by step, until a TLSSocket is live.

const net = require('net');
const { addAbortSignal } = require('stream');
const addon = require('./addon');
const { Channel, GRACE, PATIENCE } = require('./channel');
const { TLSSocket } = require('./socket');
const { forClient, forServer, openFiles, closeFiles } = require('./options');
const { SSAError, failure } = require('./errors');

const HANDSHAKE = 300000; // milliseconds: the policy's handshake_timeout is shorter

/** Resolves when a TCP connection is made. It is not read from: what comes is ssad's. */
function connected(tcp) {
  tcp.pause();
  if (!tcp.connecting) return Promise.resolve();
  return new Promise((resolve, reject) => {
    tcp.once('connect', resolve);
    tcp.once('error', reject);
    tcp.once('close', () => reject(new SSAError('the connection was closed', { code: 'ECONNABORTED' })));
  });
}

const ignore = () => {}; // an error of a socket that is ssad's by now: ssad meets it too, and says so

function descriptorOf(tcp) {
  const fd = tcp._handle?.fd; // Node has no public name for it
  if (!(fd >= 0)) throw failure('NOT_TCP', 'the socket has no descriptor: is it connected, and a net.Socket?');
  return fd;
}

/** Have a plain socket that was in use read no more. What it has read already is returned. */
function taken(tcp) {
  tcp.pause();
  if (tcp.writableLength) throw failure('BAD_VALUE', 'the socket has plain text that is not sent yet: wait for its drain');
  descriptorOf(tcp);
  const read = tcp.readableLength ? tcp.read(tcp.readableLength) : Buffer.alloc(0);
  tcp._handle.readStop(); // behind read(), which starts it
  tcp._handle.reading = false;
  return read;
}

/** One handshake: it sends the request for the TCP socket, and makes the TLS socket live. */
async function shake(socket, channel, tcp, kind, attributes, files) {
  tcp.on('error', ignore);
  channel.send(kind, attributes, [descriptorOf(tcp), ...files.map((file) => file.fd)]);
  const wait = attributes.timeout_ms === undefined ? HANDSHAKE : attributes.timeout_ms + GRACE;
  const { reply, descriptors } = await channel.hear(wait);
  if (socket.destroyed) {
    descriptors.forEach(addon.close);
    return;
  }
  if (reply.relayed !== 1 || !descriptors.length) {
    descriptors.forEach(addon.close);
    throw failure('DAEMON_FAULT', 'its reply lacks the descriptor');
  }
  descriptors.slice(1).forEach(addon.close);
  socket._live(reply, descriptors[0]);
}

function announce(socket, event) {
  if (socket.destroyed) return;
  socket.emit('connect');
  socket.emit('ready');
  socket.emit(event);
}

/** Do the steps; whatever fails destroys the socket with that error. Each descriptor that was made for it is closed. */
async function attempt(socket, options, steps) {
  let channel;
  let files = [];
  try {
    channel = await Channel.open(options.handshakeTimeout ?? PATIENCE, () => socket.destroyed);
    files = openFiles(options);
    socket._speakBy(channel);
    if (!socket.destroyed) await steps(channel, files);
  } catch (error) {
    if (!socket.destroyed) socket.destroy(error);
  } finally {
    closeFiles(files);
    channel?.close();
  }
}

const HOST = 'localhost';

function connectTcp(options) {
  const { signal, timeout, socket, ALPNProtocols, allowHalfOpen, onread, ...tcp } = options;
  return net.connect({ host: HOST, ...tcp, allowHalfOpen: true });
}

/** A new TCP connection, or the one that is to be upgraded (STARTTLS). */
function tcpFor(options) {
  if (!options.socket) return connectTcp(options);
  if (taken(options.socket).length) {
    throw failure('PLAINTEXT_PENDING', 'the program has read it already');
  }
  return options.socket;
}

function hostnameOf(options) {
  if (options.servername) return options.servername;
  return options.host ?? (options.socket ? '' : HOST);
}

/**
 * Connect to a TLS server: a TLSSocket at once, which emits `secureConnect` or `error`.
 *
 * The server is verified under the administrator's policy to be `options.servername`, or else `options.host`.
 */
function connect(options, callback) {
  const attributes = forClient(options, hostnameOf(options) || undefined);
  const socket = new TLSSocket(options);
  if (callback) socket.once('secureConnect', callback);
  if (options.signal) addAbortSignal(options.signal, socket);
  if (options.timeout) socket.setTimeout(options.timeout);
  if (options.socket) socket._stand(options.socket); // whatever goes wrong, nobody sends plain text on it
  attempt(socket, options, async (channel, files) => {
    const tcp = tcpFor(options);
    socket._stand(tcp);
    await connected(tcp);
    if (options.noDelay) tcp.setNoDelay(true);
    if (options.keepAlive) tcp.setKeepAlive(true, options.keepAliveInitialDelay);
    await shake(socket, channel, tcp, 'connect', attributes, files);
    announce(socket, 'secureConnect');
  });
  return socket;
}

/**
 * Make the handshake as a server on a connection that was accepted, or on one that was in use (STARTTLS).
 *
 * Returns a TLSSocket at once, which emits `secure` or `error`.
 */
function accept(tcp, options = {}) {
  const attributes = forServer(options);
  const ahead = taken(tcp);
  const socket = new TLSSocket({ ...options, isServer: true });
  socket._stand(tcp);
  attempt(socket, options, async (channel, files) => {
    await shake(socket, channel, tcp, 'accept', { ...attributes, ahead: ahead.length ? ahead : undefined }, files);
    announce(socket, 'secure');
  });
  return socket;
}

module.exports = { connect, accept };
