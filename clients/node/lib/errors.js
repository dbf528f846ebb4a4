'use strict';
// Errors: one class. Its `code` is the name of the errno, as everywhere in Node.

const os = require('os');
const { REASONS } = require('./tables');

const NAMES = new Map(Object.entries(os.constants.errno).map(([name, number]) => [number, name]));
const MORE = { ENOKEY: 126, EKEYEXPIRED: 127, EKEYREJECTED: 129 }; // asm-generic/errno.h; Node does not name them
for (const [name, number] of Object.entries(MORE)) NAMES.set(number, name);
const NUMBERS = new Map([...NAMES].map(([number, name]) => [name, number]));

const codeOf = (number) => NAMES.get(number) ?? `E${number}`;

class SSAError extends Error {
  /**
   * @param {string} message says what is wrong, and what can be done
   * @param {{code: string, errno?: number, reason?: string, whoseFault?: string, alert?: string}} about
   */
  constructor(message, { code, errno = NUMBERS.get(code), reason = '', whoseFault = 'system', alert }) {
    super(message);
    this.name = 'SSAError';
    this.code = code;
    this.errno = errno === undefined ? undefined : -errno; // below 0, as of Node's system errors
    this.reason = reason;
    this.whoseFault = whoseFault;
    if (alert !== undefined) this.alert = alert;
  }
}

function words(reason, row, detail) {
  const text = row ? row.text : '';
  const told = [text, detail].filter(Boolean).join(': ');
  return `[${reason}] ${told}${row && row.advice ? `. ${row.advice}` : ''}`;
}

/** The error of a reason that ssad, or this library, gives; `errno` is the reply's. */
function failure(reason, detail = '', { errno, alert } = {}) {
  const row = Object.hasOwn(REASONS, reason) ? REASONS[reason] : undefined;
  const code = row ? row.code : codeOf(errno ?? NUMBERS.get('EIO'));
  const whoseFault = row ? row.fault : 'system';
  return new SSAError(words(reason, row, detail), { code, errno: errno ?? NUMBERS.get(code), reason, whoseFault, alert });
}

/** The error of an errno (as a number above 0), in a system call that the library makes. */
function systemFailure(number, message) {
  return new SSAError(`${message} (${codeOf(number)})`, { code: codeOf(number), errno: number });
}

module.exports = { SSAError, failure, systemFailure, codeOf, NUMBERS };
