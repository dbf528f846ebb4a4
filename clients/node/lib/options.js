'use strict';
// What a program asks for, by the names that Node's own tls module has for it, as attributes of a request and files.

const fs = require('fs');
const addon = require('./addon');
const { VERSIONS } = require('./tables');
const { failure, systemFailure } = require('./errors');

// Options of Node's tls module that ssa cannot do: passed over they would mean something else than was asked for.
const REFUSED = [
  'pfx', 'crl', 'passphrase', 'secureContext', 'checkServerIdentity', 'sigalgs', 'ecdhCurve', 'dhparam', 'pskCallback',
  'ciphers', 'SNICallback', 'ALPNCallback', 'ticketKeys', 'privateKeyEngine', 'clientCertEngine', 'secureOptions',
  'secureProtocol',
];

function refuseWhatCannotBeDone(options) {
  for (const name of REFUSED) {
    if (options[name]) {
      throw failure('NO_COUNTERPART', `${name}: the administrator's policy decides it; docs/node.md has what can be asked for`);
    }
  }
}

function version(name) {
  if (name === undefined || name === null) return undefined;
  if (!Object.hasOwn(VERSIONS, name)) throw failure('BAD_VALUE', `${name} is no version; TLSv1.2 and TLSv1.3 are`);
  return VERSIONS[name];
}

function protocols(value) {
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' || (Array.isArray(value) && value.every((name) => typeof name === 'string'))) return [].concat(value);
  throw failure('BAD_VALUE', 'ALPNProtocols is a list of names');
}

// --- files ---

const isText = (value) => value instanceof Uint8Array || String(value).includes('-----BEGIN');

function opened(value, what) {
  if (isText(value)) {
    const fd = addon.memory(Buffer.from(value));
    if (fd < 0) throw systemFailure(-fd, `no file in memory can be made for ${what}`);
    return { fd, close: () => addon.close(fd) };
  }
  const fd = fs.openSync(value, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  return { fd, close: () => fs.closeSync(fd) }; // a worker thread counts what fs has opened
}

const listed = (value) => (value === undefined || value === null ? [] : [].concat(value));

const closeFiles = (files) => files.forEach((file) => file.close());

/** Open files of trust anchors, certificates and keys, in the order of a request. The caller closes them. */
function openFiles(options) {
  const files = [];
  try {
    for (const what of ['ca', 'cert', 'key']) {
      for (const value of listed(options[what])) files.push(opened(value, what));
    }
    return files;
  } catch (error) {
    closeFiles(files);
    throw error;
  }
}

const counted = (value) => (value === undefined || value === null ? undefined : listed(value).length);

function shared(options) {
  refuseWhatCannotBeDone(options);
  return {
    TLS_TRUSTED_PEER_CERTIFICATES: counted(options.ca),
    TLS_CERTIFICATE_CHAIN: counted(options.cert),
    TLS_PRIVATE_KEY: counted(options.key),
    TLS_ALPN: protocols(options.ALPNProtocols),
    TLS_SESSION_TTL: options.sessionTtl,
    TLS_DISABLE_CIPHER: options.disableCiphers,
    TLS_VERSION_MIN: version(options.minVersion),
    TLS_VERSION_MAX: version(options.maxVersion),
    timeout_ms: options.handshakeTimeout,
    relay: 1, // libuv reads by itself, and knows nothing of TLS's records
    with_chain: 1,
  };
}

const isTrue = (value) => (value ? 1 : undefined);

function forClient(options, hostname) {
  return {
    TLS_REMOTE_HOSTNAME: hostname,
    ...shared(options),
    TLS_UPGRADE: isTrue(options.socket),
    lenient: options.rejectUnauthorized === false ? 1 : undefined,
  };
}

function peerAuth({ requestCert, rejectUnauthorized }) {
  if (!requestCert) return undefined;
  return rejectUnauthorized === false ? 2 : 1;
}

function forServer(options) {
  return { TLS_HOSTNAME: options.servername, ...shared(options), TLS_REQUEST_PEER_AUTH: peerAuth(options) };
}

module.exports = { forClient, forServer, openFiles, closeFiles };
