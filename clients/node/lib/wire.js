'use strict';
// The request language: a message is a header and attributes (docs/library.md, "The request language").

const os = require('os');
const { KINDS, ATTRIBUTES, REPLY, LONGEST } = require('./tables');
const { failure } = require('./errors');

const HEADER = 12; // bytes: "SSA1", kind, number of attributes, length of the whole
const BEFORE_VALUE = 8; // bytes: type, zero, length
const LITTLE = os.endianness() === 'LE';
const OF_REPLIES = new Map(REPLY.map((name) => [ATTRIBUTES[name][0], { name, form: ATTRIBUTES[name][1] }]));

const read16 = (from, at) => (LITTLE ? from.readUInt16LE(at) : from.readUInt16BE(at));
const read32 = (from, at) => (LITTLE ? from.readUInt32LE(at) : from.readUInt32BE(at));
const read64 = (from, at) => (LITTLE ? from.readBigUInt64LE(at) : from.readBigUInt64BE(at));
const write16 = (to, at, value) => (LITTLE ? to.writeUInt16LE(value, at) : to.writeUInt16BE(value, at));
const write32 = (to, at, value) => (LITTLE ? to.writeUInt32LE(value, at) : to.writeUInt32BE(value, at));

function sized(size, write) {
  const made = Buffer.alloc(size);
  write(made);
  return made;
}

function namesWritten(names) {
  return Buffer.concat(names.map((name) => {
    const text = Buffer.from(name, 'utf8');
    if (!text.length || text.length > 255 || text.some((byte) => byte > 0x7f)) {
      throw failure('BAD_VALUE', `a name has 1 to 255 characters of ASCII: ${name}`);
    }
    return Buffer.concat([Buffer.of(text.length), text]);
  }));
}

const WRITE = {
  u32: (value) => sized(4, (to) => write32(to, 0, value)),
  u64: (value) => sized(8, (to) => (LITTLE ? to.writeBigUInt64LE(BigInt(value)) : to.writeBigUInt64BE(BigInt(value)))),
  text: (value) => Buffer.from(value, 'utf8'),
  names: namesWritten,
  bytes: (value) => value,
};

function attributeWritten([name, value]) {
  const [number, form] = ATTRIBUTES[name];
  const bytes = WRITE[form](value);
  return [sized(BEFORE_VALUE, (to) => { write16(to, 0, number); write32(to, 4, bytes.length); }), bytes];
}

/** A message as bytes. `attributes` is an object; what is undefined in it is absent. */
function pack(kind, attributes) {
  const present = Object.entries(attributes).filter(([, value]) => value !== undefined);
  const body = Buffer.concat(present.flatMap(attributeWritten));
  const header = Buffer.from('SSA1\0\0\0\0\0\0\0\0', 'latin1');
  write16(header, 4, KINDS[kind]);
  write16(header, 6, present.length);
  write32(header, 8, HEADER + body.length);
  if (header.length + body.length > LONGEST.request) throw failure('BAD_REQUEST', 'the options are longer than a request');
  return Buffer.concat([header, body]);
}

// --- reading ---

const malformed = (what) => failure('DAEMON_FAULT', `its reply is none of this protocol's: ${what}`);
const another = (what) => failure('VERSION_MISMATCH', what);

function lengthOf(value, size) {
  if (value.length !== size) throw malformed('a number of another length');
  return value;
}

function namesRead(value) {
  const names = [];
  for (let at = 0; at < value.length; at += 1 + value[at]) {
    const name = value.subarray(at + 1, at + 1 + value[at]);
    if (!value[at] || name.length < value[at]) throw malformed('a list of names that is cut');
    if (name.some((byte) => byte > 0x7f)) throw malformed('a name that is not ASCII');
    names.push(name.toString('latin1'));
  }
  return names;
}

function textRead(value) {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(value);
    if (!text.includes('\0')) return text;
  } catch { /* the next line says it */ }
  throw malformed('a text that is none');
}

const READ = {
  u32: (value) => read32(lengthOf(value, 4), 0),
  u64: (value) => read64(lengthOf(value, 8), 0),
  text: textRead,
  names: namesRead,
  bytes: (value) => value,
};

function headerReadUntrusted(packet) {
  const magic = packet.toString('latin1', 0, 4);
  if (packet.length < 4 || !magic.startsWith('SSA')) throw malformed('no header');
  if (magic !== 'SSA1') throw another(`ssad speaks version ${magic.slice(3)} of the request language, this library version 1`);
  if (packet.length < HEADER || packet.length > LONGEST.reply) throw malformed('a wrong length');
  const kind = read16(packet, 4);
  if (!Object.values(KINDS).includes(kind)) throw another(`ssad's reply has the kind ${kind}`);
  if (kind !== KINDS.reply) throw malformed('a request');
  if (read32(packet, 8) !== packet.length) throw malformed('a wrong length');
  return read16(packet, 6);
}

function* attributesReadUntrusted(packet, count) {
  let at = HEADER;
  for (; count > 0; count -= 1) {
    if (at + BEFORE_VALUE > packet.length) throw malformed('an attribute that is cut');
    const end = at + BEFORE_VALUE + read32(packet, at + 4);
    if (end > packet.length || read16(packet, at + 2)) throw malformed('an attribute that is cut');
    yield [read16(packet, at), packet.subarray(at + BEFORE_VALUE, end)];
    at = end;
  }
  if (at !== packet.length) throw malformed('bytes behind the last attribute');
}

/** The attributes of a reply, by name. What a reply of this version does not have is passed over. */
function replyReadUntrusted(packet) {
  const count = headerReadUntrusted(packet);
  const reply = {};
  const seen = new Set();
  for (const [number, value] of attributesReadUntrusted(packet, count)) {
    if (seen.has(number)) throw malformed('an attribute that comes twice');
    seen.add(number);
    const known = OF_REPLIES.get(number);
    if (known) reply[known.name] = READ[known.form](value);
  }
  return reply;
}

module.exports = { pack, replyReadUntrusted };
