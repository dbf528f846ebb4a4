'use strict';
// Answers questions about vectors by clients/node's wire.js: a question a line in JSON, an answer a line.

const path = require('path');
const readline = require('readline');

const { pack, replyReadUntrusted } = require(path.join(__dirname, '..', '..', 'clients', 'node', 'lib', 'wire.js'));
const { ATTRIBUTES } = require(path.join(__dirname, '..', '..', 'clients', 'node', 'lib', 'tables.js'));

const fromJson = (name, value) => (ATTRIBUTES[name][1] === 'bytes' ? Buffer.from(value, 'hex') : value);
const toJson = { bytes: (value) => value.toString('hex'), u64: Number };

const ANSWERS = {
  write({ kind, attributes }) {
    const values = Object.entries(attributes).map(([name, value]) => [name, fromJson(name, value)]);
    return pack(kind, Object.fromEntries(values)).toString('hex');
  },
  read({ hex }) {
    const reply = Object.entries(replyReadUntrusted(Buffer.from(hex, 'hex')));
    return Object.fromEntries(reply.map(([name, value]) => [name, (toJson[ATTRIBUTES[name][1]] ?? ((same) => same))(value)]));
  },
};

function answered({ do: what, ...question }) {
  try {
    return ANSWERS[what](question);
  } catch (error) {
    if (error.reason === undefined) throw error;
    return { error: error.reason };
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  process.stdout.write(`${JSON.stringify(answered(JSON.parse(line)))}\n`);
});
