// Types of ssa. docs/node.md tells how to use it.

/// <reference types="node" />
import * as http from 'http';
import * as https from 'https';
import * as net from 'net';
import { DetailedPeerCertificate, PeerCertificate } from 'tls';
import { X509Certificate } from 'crypto';

/** PEM text, or the path of a PEM file. */
export type PEM = string | Uint8Array;
export type Version = 'TLSv1.2' | 'TLSv1.3';

/** What a program may ask for. Each narrows the administrator's policy; none can loosen it. */
export interface Options {
  /** Trust anchors that the peer has to satisfy besides the administrator's. */
  ca?: PEM | PEM[];
  /** One's own certificate with its chain. */
  cert?: PEM | PEM[];
  /** Its key: one for each certificate, in any order. */
  key?: PEM | PEM[];
  /** Application protocols, the preferred one first. */
  ALPNProtocols?: string | string[];
  minVersion?: Version;
  maxVersion?: Version;
  /** Cipher suites that are not used, by IANA's or OpenSSL's names. */
  disableCiphers?: string[];
  /** For how many seconds a session may be resumed; 0: never. */
  sessionTtl?: number;
  /** Milliseconds for the handshake; the policy's time holds too. */
  handshakeTimeout?: number;
  allowHalfOpen?: boolean;
}

export interface ConnectOptions extends Options, Partial<Omit<net.TcpNetConnectOpts, 'port'>> {
  port?: number | string;
  /** Whom the server's certificate has to be for, where that is not `host`. */
  servername?: string;
  /** A plain connection that is in use: TLS starts on it (STARTTLS). */
  socket?: net.Socket;
  /** Milliseconds of silence until 'timeout' is emitted, as of net.Socket. */
  timeout?: number;
  signal?: AbortSignal;
  /** false does not count: the server is verified all the same. Where it is refused, ssad's log says who asked. */
  rejectUnauthorized?: boolean;
}

export interface ServerOptions extends Options, Omit<net.ServerOpts, 'pauseOnConnect'> {
  /** The one name that is served. */
  servername?: string;
  /** A client has to present a certificate, or, where rejectUnauthorized is false, is asked for one. */
  requestCert?: boolean;
  rejectUnauthorized?: boolean;
}

export class SSAError extends Error {
  /** The name of the errno. */
  code: string;
  /** Its number, below 0. */
  errno?: number;
  /** ssad's reason, as docs/library.md lists them; '': it was none of ssad's. */
  reason: string;
  whoseFault: 'peer' | 'policy' | 'caller' | 'network' | 'system';
  /** The TLS alert that was sent, or has come. */
  alert?: string;
}

export class TLSSocket extends net.Socket {
  readonly encrypted: true;
  /** The peer was verified. */
  readonly authorized: boolean;
  readonly authorizationError: null;
  /** The protocol that was chosen (ALPN); false: none. */
  readonly alpnProtocol: string | false;
  /** Of a server's socket: the name that the client asked for. */
  readonly servername: string | null;
  readonly isServer: boolean;
  getPeerCertificate(detailed: true): DetailedPeerCertificate;
  getPeerCertificate(detailed?: false): PeerCertificate;
  getPeerX509Certificate(): X509Certificate | undefined;
  /** The certificates that the peer has sent, PEM, its own first. */
  getPeerCertificateChain(): string;
  /** Who the peer was verified to be; '': it was not asked. */
  getPeerIdentity(): string;
  getProtocol(): Version | null;
  getCipher(): { name: string; standardName: string; version: Version } | undefined;
  isSessionReused(): boolean;
}

export class Agent extends https.Agent {
  constructor(options?: https.AgentOptions & Options);
}

export class Server extends net.Server {
  constructor(options?: ServerOptions, listener?: (socket: TLSSocket) => void);
}

/** Connect: a socket at once, which emits 'secureConnect' or 'error'. */
export function connect(options: ConnectOptions, callback?: () => void): TLSSocket;
/** Make the handshake as a server on a plain connection: a socket at once, which emits 'secure' or 'error'. */
export function accept(socket: net.Socket, options?: ServerOptions): TLSSocket;
export function createServer(options?: ServerOptions, listener?: (socket: TLSSocket) => void): Server;
/** For `new undici.Agent({ connect })`. */
export function connector(options?: ConnectOptions): (options: any, callback: (...result: any[]) => void) => net.Socket;
