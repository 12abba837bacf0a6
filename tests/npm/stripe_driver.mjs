// Drives the official Node SDK of Stripe, unmodified: one JSON line in is one call, one JSON line out is what came.
//
//   node stripe_driver.mjs NODE_MODULES HOST PORT KEY
//   {"call": "transfers.create", "args": [params, options], "retries": 0}
//   -> {"object": ..., "class": null, "headers": ...} or {"error": ..., "class": "StripePermissionError"}
//
// An arg is handed to the SDK as it stands; {"pages": true} walks a list with the SDK's own pagination.

import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [modules, host, port, key] = process.argv.slice(2);
const Stripe = createRequire(`${modules}/`)('stripe');
const clients = new Map();

function client(retries) {
  if (!clients.has(retries)) {
    clients.set(retries, new Stripe(key, { host, port, protocol: 'http', maxNetworkRetries: retries }));
  }
  return clients.get(retries);
}

async function perform({ call, args, retries = 0, pages = false }) {
  const names = call.split('.');
  const method = names.pop();
  const resource = names.reduce((inner, name) => inner[name], client(retries));
  if (pages) {
    return { object: await resource[method](...args).autoPagingToArray({ limit: 1000 }), class: null, headers: {} };
  }
  const object = await resource[method](...args);
  return { object, class: null, headers: object.lastResponse.headers };
}

function told(error) {
  const { code = null, param = null, statusCode = null, message, raw = {} } = error;
  return { error: { code, param, status: statusCode, message, ours: raw.countermark ?? null },
    class: error.constructor.name, headers: error.headers ?? {} };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await perform(JSON.parse(line)).catch(told);
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // the SDK's idle connections would keep the process
