'use strict';
// node fetch.js https://HOST[:PORT]/PATH: fetch a page. The server is verified under the administrator's policy.

const https = require('https');
const { Agent } = require('..');

const [url] = process.argv.slice(2);
if (!url) {
  console.error('usage: node fetch.js https://HOST[:PORT]/PATH');
  process.exit(2);
}
https.get(url, { agent: new Agent() }, (response) => response.pipe(process.stdout)).on('error', (error) => {
  console.error(`fetch.js: ${error.message}`);
  process.exitCode = 1;
});
