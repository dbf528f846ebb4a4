'use strict';
// A conversation with ssad: one request, one reply. Nothing here waits on the event loop.

const addon = require('./addon');
const { pack, replyReadUntrusted } = require('./wire');
const { SSAError, failure, systemFailure, codeOf } = require('./errors');

const LOCAL = 5000; // milliseconds for what concerns nobody but ssad
const AGAIN = 10; // milliseconds until a full queue is tried again
const PATIENCE = 60000; // milliseconds for an ssad that has much to do, where nobody is held up by it
const GRACE = 500; // milliseconds more than ssad has, so that it is ssad that says that time is up

// --- who waits for what: one function is called for all numbers ---

const waiting = new Map();
let last = 0;
let started = false;

function ready(number) {
  const resolve = waiting.get(number);
  waiting.delete(number);
  if (resolve) resolve();
}

function checked(result, what) {
  if (result < 0) throw systemFailure(-result, what);
  return result;
}

/** Resolves when the descriptor can be read; `cancel` gives that up. */
function readable(fd) {
  if (!started) {
    checked(addon.start(ready), 'no thread can be started to wait for ssad');
    started = true;
  }
  last = (last % 0x3fffffff) + 1;
  const number = last;
  checked(addon.watch(fd, number), 'a reply of ssad cannot be waited for');
  return { done: new Promise((resolve) => waiting.set(number, resolve)), cancel: () => waiting.delete(number) };
}

// --- connecting ---

const isPrivileged = () => process.getuid() !== process.geteuid() || process.getgid() !== process.getegid();

function socketPath() {
  const directory = (!isPrivileged() && process.env.SSA_RUN_DIR) || '/run/ssa';
  return `${directory}/ssad.sock`;
}

function noSsad(code, path) {
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    const advice = 'start it with `ssad` (as root); for your own daemon: `ssad --user`, then eval "$(ssa env)"';
    return new SSAError(`no ssad listens at ${path}; ${advice}`, { code: 'ECONNREFUSED' });
  }
  if (code === 'EAGAIN') return new SSAError(`the ssad at ${path} takes no request in time`, { code: 'ETIMEDOUT' });
  return new SSAError(`the ssad at ${path} cannot be reached: ${code}`, { code });
}

// Where ssad's queue is full, who came first tries again, and the others after it.
const line = [];

function giveTurns() {
  while (line.length) {
    const [first] = line;
    const channel = first.isGivenUp() ? false : first.opened();
    if (channel === null) {
      setTimeout(giveTurns, AGAIN);
      return;
    }
    line.shift();
  }
}

/** A channel when the queue has room: `opened` of the line's first is called until it gives one, or throws. */
function inTurn(milliseconds, isGivenUp) {
  const end = Date.now() + milliseconds;
  return new Promise((resolve, reject) => {
    const opened = () => {
      try {
        if (Date.now() > end) throw noSsad('EAGAIN', socketPath());
        const channel = Channel.openNow();
        if (channel) resolve(channel);
        return channel;
      } catch (error) {
        reject(error);
        return false;
      }
    };
    const givenUp = () => {
      if (isGivenUp()) reject(noSsad('EAGAIN', socketPath()));
      return isGivenUp();
    };
    line.push({ opened, isGivenUp: givenUp });
    if (line.length === 1) giveTurns();
  });
}

/** One connection to ssad. `close` ends it, and with it the handshake that is under way. */
class Channel {
  #fd;
  #waits = null;

  constructor(fd) {
    this.#fd = fd;
  }

  /** A channel at once, or null where ssad's queue is full. Throws where there is no ssad. */
  static openNow() {
    const path = socketPath();
    const fd = addon.open(path);
    if (fd >= 0) return new Channel(fd);
    if (codeOf(-fd) !== 'EAGAIN') throw noSsad(codeOf(-fd), path);
    return null;
  }

  /** A channel. While ssad's queue is full it waits, for so many milliseconds. */
  static async open(milliseconds = LOCAL, isGivenUp = () => false) {
    return (line.length === 0 && Channel.openNow()) || inTurn(milliseconds, isGivenUp);
  }

  /** Send a request with its descriptors. */
  send(kind, attributes, descriptors) {
    const sent = addon.send(this.#fd, pack(kind, attributes), descriptors);
    if (sent < 0) throw new SSAError('the ssad that was asked has gone', { code: codeOf(-sent) });
  }

  /** The reply to a request: {reply, descriptors}. It throws what ssad refuses. */
  async hear(milliseconds = LOCAL) {
    const wait = readable(this.#fd);
    const late = this.#lateness(milliseconds);
    this.#waits = () => { wait.cancel(); clearTimeout(late.timer); late.give(true); };
    const given = await Promise.race([wait.done, late.done]);
    const closed = this.#waits === null;
    if (!closed) {
      this.#waits();
      this.#waits = null;
      addon.unwatch(this.#fd);
    }
    if (closed) throw new SSAError('the request was given up', { code: 'ECANCELED', whoseFault: 'caller' });
    if (given) throw new SSAError('the ssad that was asked does not answer; is it stopped?', { code: 'ETIMEDOUT' });
    return this.#receive();
  }

  #lateness(milliseconds) {
    const late = {};
    late.done = new Promise((resolve) => { late.give = resolve; });
    if (milliseconds !== undefined && milliseconds !== Infinity) {
      late.timer = setTimeout(() => late.give(true), milliseconds);
    }
    return late;
  }

  #receive() {
    const told = addon.receive(this.#fd);
    if (typeof told === 'number') throw new SSAError('the ssad that was asked has gone', { code: codeOf(-told) });
    try {
      return { reply: judged(told), descriptors: told.descriptors };
    } catch (error) {
      told.descriptors.forEach(addon.close);
      throw error;
    }
  }

  close() {
    if (this.#fd < 0) return;
    if (this.#waits) {
      addon.unwatch(this.#fd);
      this.#waits();
      this.#waits = null;
    }
    addon.close(this.#fd);
    this.#fd = -1;
  }
}

function judged(told) {
  if (told.cut) {
    throw new SSAError("ssad's reply brings more descriptors than there is room for (ulimit -n)", { code: 'EMFILE' });
  }
  if (!told.data.length) throw failure('DAEMON_FAULT', 'it went away in the middle of the request');
  const reply = replyReadUntrusted(told.data);
  if (reply.reason === undefined) return reply;
  throw failure(reply.reason, reply.TLS_ERROR, { errno: reply.errno, alert: reply.alert });
}

/** Ask ssad for one thing that concerns nobody else: the reply. Descriptors that come with it are closed. */
async function ask(kind, attributes, descriptors, milliseconds = LOCAL) {
  const channel = await Channel.open(milliseconds);
  try {
    channel.send(kind, attributes, descriptors);
    const { reply, descriptors: came } = await channel.hear(milliseconds);
    came.forEach(addon.close);
    return reply;
  } finally {
    channel.close();
  }
}

/**
 * Tell ssad something that needs no answer, about a descriptor that the caller closes next: at once, or, where ssad's
 * queue is full, later and with a descriptor of its own. Where there is no ssad there is nobody to tell.
 */
function tell(kind, attributes, fd) {
  let channel = null;
  try {
    channel = Channel.openNow();
    if (channel) channel.send(kind, attributes, [fd]);
    else tellLater(kind, attributes, addon.duplicate(fd));
  } catch (error) {
    if (!(error instanceof SSAError)) throw error;
  } finally {
    if (channel) channel.close();
  }
}

async function tellLater(kind, attributes, fd) {
  if (fd < 0) return;
  try {
    const channel = await Channel.open(PATIENCE);
    channel.send(kind, attributes, [fd]);
    channel.close();
  } catch (error) {
    if (!(error instanceof SSAError)) throw error;
  } finally {
    addon.close(fd);
  }
}

module.exports = { Channel, ask, tell, GRACE, PATIENCE };
