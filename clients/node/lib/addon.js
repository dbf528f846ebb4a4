'use strict';
// The addon: as `npm install` has built it here, or `make native` in a checkout of ssa.

const PLACES = ['../build/ssa.node', '../../../build/native/node/ssa.node'];

function load() {
  for (const place of PLACES) {
    try {
      return require(place);
    } catch (error) {
      if (error.code !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new Error(`ssa's addon is not built: run \`npm install\` in ${require('path').dirname(__dirname)} (it needs a C compiler and make)`);
}

module.exports = load();
