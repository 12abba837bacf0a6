"use strict";
// The check of an evidence pack by the page that came with it, or by any other copy of this script: the steps of
// docs/spec/verify.md as far as a browser can take them. Nothing here talks to a network. Facts and decisions are not
// made again (V13, V14), and what else is left to countermark-verify stands in NOT_DONE and is always shown.
//
// Part 1 is bytes, digests and strict forms; part 2 the container, manifest, head and tree; part 3 the records;
// part 4 extracts, epochs and witnessed heads; part 5 population.csv and the figures of the page; part 6 the report;
// part 7 the page itself. Parts 1 to 6 run in any program that has WebCrypto.

(() => {
const PACK_BYTES_MAX = 64 * 1024 ** 2;  // more would not hang the tab, but take minutes: countermark-verify reads it
const TRUST_BYTES_MAX = 16 * 1024 ** 2;
const INTEGER_MAX = Number.MAX_SAFE_INTEGER;
const RECORD_BYTES_MAX = 65535, DEPTH_MAX = 16, VALUES_MAX = 400000;
const FINDINGS_MAX = 100, UNREADABLE_MAX = 1000, BREATH_MS = 30;
const ZERO = "sha256:" + "0".repeat(64);
const NOT_DONE = [
  "facts and budgets were not computed again (V13)",
  "decisions were not made again (V14)",
  "that a policy's texts are well-formed and its compiled part is what they say (V09)",
  "who may answer, by role, rung and separation, and that a mandate is within its parent (V10)",
  "AP2 documents and signed requests were not held against what was decided (V10)",
  "the ladders' times, obligations, runs and clearances were followed in part only (V11)",
  "arguments, business keys and provider requests were not made again (V12)",
  "of witnessed heads, the policy's own quorum and what had to wait for it (V08)",
  "time stamps (V16), anchors (V17), erasures, holds and disclosures to people (V19), effects on a chain (V20)",
  "runs of workflows were not followed, and no pure step was executed again (V21)",
  "who may rotate the log's key, and keys that others may have (V03, V10)",
];

class Malformed extends Error {}
class Unreadable extends Error {
  constructor(code, message) { super(message); this.code = code; }
}

// ---------------------------------------------------------------- part 1: bytes, digests, strict forms

const encoder = new TextEncoder();
const bytesOf = (text) => encoder.encode(text);
const textOf = (raw) => {
  try {
    return new TextDecoder("utf-8", {fatal: true, ignoreBOM: true}).decode(raw);
  } catch (error) {
    throw new Malformed("is not UTF-8");
  }
};
const HEX = Array.from({length: 256}, (_, byte) => byte.toString(16).padStart(2, "0"));
const hexOf = (raw) => { let text = ""; for (const byte of raw) text += HEX[byte]; return text; };
const has = (value, name) => Object.prototype.hasOwnProperty.call(value, name);

function same(a, b) {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}

// SHA-256 (FIPS 180-4), for the many small inputs of a tree: a promise for each would take longer than the hash.
// WebCrypto hashes the members, and `selfTest` compares the two.
// Signed words throughout: engines keep those as integers, and unsigned ones as floating point.
const K256 = new Int32Array(64), START256 = new Int32Array(8);
{
  // The first 32 bits of the fractions of the cube roots, and square roots, of the first primes: exact, by integers.
  const root = (prime, power) => {
    const wanted = BigInt(prime) << BigInt(32 * power);
    let low = 0n, high = 1n << 36n;
    while (high - low > 1n) {
      const middle = (low + high) / 2n;
      if (middle ** BigInt(power) <= wanted) low = middle; else high = middle;
    }
    return Number(BigInt.asIntN(32, low));
  };
  let found = 0;
  for (let candidate = 2; found < 64; candidate++) {
    let prime = true;
    for (let by = 2; by * by <= candidate; by++) if (candidate % by === 0) prime = false;
    if (!prime) continue;
    if (found < 8) START256[found] = root(candidate, 2);
    K256[found++] = root(candidate, 3);
  }
}
const W256 = new Int32Array(64);

function sha256(...parts) {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const padded = new Uint8Array((size + 72) >>> 6 << 6);
  let at = 0;
  for (const part of parts) { padded.set(part, at); at += part.length; }
  padded[size] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(size / 0x20000000));
  view.setUint32(padded.length - 4, (size << 3) >>> 0);
  const h = new Int32Array(START256);
  for (let block = 0; block < padded.length; block += 64) {
    for (let t = 0; t < 16; t++) W256[t] = view.getInt32(block + 4 * t);
    for (let t = 16; t < 64; t++) {
      const x = W256[t - 15], y = W256[t - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      W256[t] = (W256[t - 16] + s0 + W256[t - 7] + s1) | 0;
    }
    let a = h[0], b = h[1], c = h[2], d = h[3], e = h[4], f = h[5], g = h[6], i = h[7];
    for (let t = 0; t < 64; t++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (i + s1 + ((e & f) ^ (~e & g)) + K256[t] + W256[t]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      i = g; g = f; f = e; e = (d + t1) | 0; d = c; c = b; b = a; a = (t1 + t2) | 0;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e; h[5] += f; h[6] += g; h[7] += i;
  }
  const out = new Uint8Array(32), words = new DataView(out.buffer);
  for (let index = 0; index < 8; index++) words.setInt32(4 * index, h[index]);
  return out;
}

const domain = (name) => bytesOf(`countermark/v1/${name}\0`);
const DOMAINS = new Map();
function digest(name, raw) {
  if (!DOMAINS.has(name)) DOMAINS.set(name, domain(name));
  return "sha256:" + hexOf(sha256(DOMAINS.get(name), raw));
}
const signingBytes = (name, document) => joined(domain(name), bytesOf(render(document)));
const webHash = async (raw) => new Uint8Array(await crypto.subtle.digest("SHA-256", raw));

async function selfTest() {
  for (const size of [0, 55, 56, 63, 64, 119, 1000]) {
    const sample = Uint8Array.from({length: size}, (_, at) => (at * 7 + size) & 255);
    if (!same(sha256(sample), await webHash(sample))) throw new Error("this script's SHA-256 is not WebCrypto's");
  }
}

// RFC 8785 inside the profile of docs/spec/digests.md: no fractions, keys in ASCII.
const KEY = /^[A-Za-z0-9_.$-]{1,64}$/;
const keysSeen = new Set();
function render(value) {
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new Malformed("has a lone surrogate");
    return JSON.stringify(value);
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw new Malformed("has a number that is no integer within 2^53-1");
    return Object.is(value, -0) ? "0" : String(value);
  }
  if (value === null || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return "[" + value.map(render).join(",") + "]";
  const names = Object.keys(value).sort();
  for (const name of names) {
    if (keysSeen.has(name)) continue;
    if (!KEY.test(name)) throw new Malformed("has a key outside the profile");
    if (keysSeen.size < 5000) keysSeen.add(name);
  }
  return "{" + names.map((name) => `"${name}":${render(value[name])}`).join(",") + "}";
}

function checkDepth(text) {
  let depth = 0, inside = false;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inside) {
      if (code === 0x5c) at++;
      else if (code === 0x22) inside = false;
    } else if (code === 0x22) inside = true;
    else if (code === 0x7b || code === 0x5b) { if (++depth > DEPTH_MAX) throw new Malformed("is nested too deep"); }
    else if (code === 0x7d || code === 0x5d) depth--;
  }
}

// The value of canonical bytes. What was parsed is rendered again and compared, so that names twice, white space, odd
// escapes and odd numbers are all refused by one comparison.
function parse(raw, bytesMax = RECORD_BYTES_MAX, valuesMax = VALUES_MAX) {
  if (raw.length > bytesMax) throw new Malformed(`is longer than ${bytesMax} bytes`);
  if (raw.length > RECORD_BYTES_MAX) {
    let values = 0, quotes = 0;
    for (const byte of raw) {
      if (byte === 0x2c || byte === 0x7b || byte === 0x5b) values++;
      else if (byte === 0x22) quotes++;
    }
    if (values + Math.floor(quotes / 4) > valuesMax) throw new Malformed(`holds more than ${valuesMax} values`);
  }
  const text = textOf(raw);
  checkDepth(text);
  let value;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Malformed("is not JSON");
  }
  if (render(value) !== text) throw new Malformed("is not in canonical form");
  return value;
}

// JSON that need not be canonical: white space is welcome, a name twice or a fraction is not.
function parseLoose(text) {
  checkDepth(text);
  let at = 0;
  const fail = (why) => { throw new Malformed(why); };
  const space = () => { while (" \t\n\r".includes(text[at]) && at < text.length) at++; };
  const token = (pattern) => {
    pattern.lastIndex = at;
    const found = pattern.exec(text);
    if (found === null) fail("is not JSON");
    at = pattern.lastIndex;
    return found[0];
  };
  const string = () => {
    try {
      return JSON.parse(token(/"(?:[^"\\\u0000-\u001f]|\\.)*"/y));
    } catch (error) {
      return fail("is not JSON");
    }
  };
  const value = () => {
    space();
    const first = text[at];
    if (first === '"') return string();
    if (first === "{") return object();
    if (first === "[") return list();
    if (text.startsWith("true", at)) { at += 4; return true; }
    if (text.startsWith("false", at)) { at += 5; return false; }
    if (text.startsWith("null", at)) { at += 4; return null; }
    const number = token(/-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y);
    if (!/^-?[0-9]+$/.test(number) || !Number.isSafeInteger(Number(number))) fail("has a number that is no integer");
    return Number(number);
  };
  const list = () => {
    const found = [];
    at++; space();
    if (text[at] === "]") { at++; return found; }
    for (;;) {
      found.push(value()); space();
      if (text[at] === "]") { at++; return found; }
      if (text[at++] !== ",") fail("is not JSON");
    }
  };
  const object = () => {
    const found = new Map();
    at++; space();
    if (text[at] === "}") { at++; return {}; }
    for (;;) {
      space();
      const name = string();
      if (found.has(name)) fail("has a key twice");
      if (!KEY.test(name)) fail("has a key outside the profile");
      space();
      if (text[at++] !== ":") fail("is not JSON");
      found.set(name, value()); space();
      if (text[at] === "}") { at++; return Object.fromEntries(found); }
      if (text[at++] !== ",") fail("is not JSON");
    }
  };
  const whole = value();
  space();
  if (at !== text.length) fail("is not JSON");
  return whole;
}

function fromBinary(text) {
  const raw = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) raw[at] = text.charCodeAt(at);
  return raw;
}

function decode64(text) {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length % 4) throw new Malformed("is not base64");
  const binary = atob(text);
  if (btoa(binary) !== text) throw new Malformed("is not the canonical base64 of its bytes");
  return fromBinary(binary);
}
const encode64 = (raw) => btoa(String.fromCharCode(...raw));
const encodeUrl = (raw) => encode64(raw).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
function decodeUrl(text) {
  if (!/^[A-Za-z0-9_-]*$/.test(text)) throw new Malformed("is not base64url");
  return decode64(text.replaceAll("-", "+").replaceAll("_", "/") + "=".repeat((4 - text.length % 4) % 4));
}

// Keys and signatures (docs/spec/digests.md).
const P25519 = 2n ** 255n - 19n;
const ORDER8 = 0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826n;
const SMALL = new Set([0n, 1n, P25519 - 1n, ORDER8, P25519 - ORDER8]);
const PASSKEY = /^webauthn:es256:([A-Za-z0-9_-]{2,340}):([A-Za-z0-9_-]{87}):((?:https:\/\/([a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)|http:\/\/localhost)(?::[1-9][0-9]{0,4})?)$/;

function checkKey(raw) {
  if (raw.length !== 32) throw new Malformed("is not a key of 32 bytes");
  let y = 0n;
  for (let at = 31; at >= 0; at--) y = (y << 8n) | BigInt(raw[at]);
  y &= (1n << 255n) - 1n;
  if (y >= P25519) throw new Malformed("is not a canonical point");
  if (SMALL.has(y)) throw new Malformed("is a key of small order");
  return raw;
}

function parseKey(text) {
  if (!text.startsWith("ed25519:")) throw new Malformed("is not written ed25519:BASE64");
  return checkKey(decode64(text.slice(8)));
}

const imported = new Map();
function importKey(raw, algorithm) {
  const name = `${algorithm.name} ${hexOf(raw)}`;
  if (!imported.has(name) && imported.size < 10000) {
    imported.set(name, crypto.subtle.importKey("raw", raw, algorithm, false, ["verify"]));
  }
  return imported.get(name) ?? crypto.subtle.importKey("raw", raw, algorithm, false, ["verify"]);
}

async function hasEd25519() {
  try {
    await importKey(decode64("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="), {name: "Ed25519"});
    return true;
  } catch (error) {
    return false;
  }
}

async function signed(key, signature, message) {
  try {
    return await crypto.subtle.verify({name: "Ed25519"}, await importKey(key, {name: "Ed25519"}), signature, message);
  } catch (error) {
    return false;  // what the library refuses to read does not verify
  }
}

// A signature in DER, strictly, as the two numbers of 32 bytes that WebCrypto takes.
function rawEcdsa(der) {
  const take = (at) => {
    const length = der[at + 1];
    const body = der.subarray(at + 2, at + 2 + length);
    if (der[at] !== 2 || length === 0 || length > 33 || body.length !== length || body[0] & 0x80) return null;
    if (length > 1 && body[0] === 0 && !(body[1] & 0x80)) return null;
    const plain = body[0] === 0 ? body.subarray(1) : body;
    if (plain.length > 32) return null;
    return [at + 2 + length, joined(new Uint8Array(32 - plain.length), plain)];
  };
  if (der[0] !== 0x30 || der[1] !== der.length - 2 || der.length > 80) return null;
  const r = take(2), s = r && take(r[0]);
  return s && s[0] === der.length ? joined(r[1], s[1]) : null;
}

const ES256 = {name: "ECDSA", namedCurve: "P-256"};
async function parsePasskey(text) {
  const match = PASSKEY.exec(text);
  if (match === null || text.length > 768) throw new Malformed("is not written webauthn:es256:CREDENTIAL:POINT:ORIGIN");
  const point = decodeUrl(match[2]);
  if (decodeUrl(match[1]).length > 255 || match[3].length > 255) throw new Malformed("has parts that are too long");
  if (point.length !== 65 || point[0] !== 4) throw new Malformed("is not an uncompressed point of P-256");
  try {
    await importKey(point, ES256);
  } catch (error) {
    throw new Malformed("is not a point of P-256");
  }
  return {point, origin: match[3], host: match[4] ?? "localhost"};
}

async function asserted(text, assertion, challenge) {
  const key = await parsePasskey(text);
  const data = decodeUrl(assertion.authenticator_data), client = decodeUrl(assertion.client_data);
  let said;
  try {
    said = JSON.parse(textOf(client));
  } catch (error) {
    return false;
  }
  if (typeof said !== "object" || said === null || Array.isArray(said)) return false;
  const get = (name) => has(said, name) ? said[name] : undefined;
  if (get("type") !== "webauthn.get" || get("origin") !== key.origin || has(said, "topOrigin")) return false;
  if (get("challenge") !== encodeUrl(challenge) || ![undefined, false].includes(get("crossOrigin"))) return false;
  if (data.length < 37 || !same(data.subarray(0, 32), sha256(bytesOf(key.host)))) return false;
  const flags = data[32];
  if ((flags & 5) !== 5 || flags & 0x40 || (data.length > 37) !== Boolean(flags & 0x80)) return false;
  const signature = rawEcdsa(decodeUrl(assertion.signature));
  if (signature === null) return false;
  const message = joined(data, sha256(client));
  return crypto.subtle.verify({name: "ECDSA", hash: "SHA-256"}, await importKey(key.point, ES256), signature, message);
}

async function signedText(key, signature, message) {
  try {
    if (key.startsWith("webauthn:")) {
      return typeof signature === "object" && await asserted(key, signature, sha256(message));
    }
    return typeof signature === "string" && await signed(parseKey(key), decode64(signature), message);
  } catch (error) {
    if (error instanceof Malformed) return false;
    throw error;
  }
}

// Shapes: each answers "" or the path and the reason of the first misfit.
const whole = (pattern) => new RegExp(`^(?:${pattern})$`, "u");
const text = (pattern = null, most = 65535) => {
  const compiled = pattern && whole(pattern);
  return (value) => typeof value !== "string" ? ": not a string"
    : value.length > most && [...value].length > most ? ": too long" : compiled && !compiled.test(value) ? ": ill-formed" : "";
};
const integer = (low = -INTEGER_MAX, high = INTEGER_MAX) => (value) =>
  Number.isSafeInteger(value) && low <= value && value <= high ? "" : ": not an integer in range";
const boolean = (value) => typeof value === "boolean" ? "" : ": not a boolean";
const nothing = (value) => value === null ? "" : ": not null";
const anything = () => "";
const constant = (...allowed) => (value) => allowed.includes(value) ? "" : `: not one of ${allowed.join(", ")}`;
const either = (...checks) => (value) => {
  let reason = "";
  for (const check of checks) if ((reason = check(value)) === "") return "";
  return reason;
};
const maybe = (check) => (value) => value === null ? "" : check(value);
const listing = (check, most = 65535) => (value) => {
  if (!Array.isArray(value)) return ": not a list";
  if (value.length > most) return ": too many items";
  for (const [index, item] of value.entries()) {
    const reason = check(item);
    if (reason) return `[${index}]${reason}`;
  }
  return "";
};
const fixed = (...checks) => (value) => {
  if (!Array.isArray(value) || value.length !== checks.length) return `: not a list of ${checks.length}`;
  for (const [index, check] of checks.entries()) {
    const reason = check(value[index]);
    if (reason) return `[${index}]${reason}`;
  }
  return "";
};
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const mapping = (check, key = null, most = 65535) => {
  const pattern = key && whole(key);
  return (value) => {
    if (!isObject(value)) return ": not an object";
    const names = Object.keys(value);
    if (names.length > most) return ": too many members";
    for (const name of names) {
      const reason = pattern && !pattern.test(name) ? ": ill-formed name" : check(value[name]);
      if (reason) return `.${name}${reason}`;
    }
    return "";
  };
};
const record = (members, optional = []) => {
  const names = Object.keys(members);
  return (value) => {
    if (!isObject(value)) return ": not an object";
    for (const name of Object.keys(value)) if (!has(members, name)) return `.${name}: unknown member`;
    for (const name of names) {
      if (!has(value, name)) { if (optional.includes(name)) continue; return `.${name}: missing`; }
      const reason = members[name](value[name]);
      if (reason) return `.${name}${reason}`;
    }
    return "";
  };
};

// ---------------------------------------------------------------- part 2: container, manifest, head, tree

const MANIFEST = "manifest.sigstore.json", CHECKPOINT = "log/checkpoint", DISCLOSURES = "disclosures.json";
const PAGE = "index.html", POPULATION = "population.csv";
const INDEX = "records/index.json", MULTIPROOF = "log/multiproof";
const REQUIRED = [MANIFEST, CHECKPOINT, DISCLOSURES];
const MB = 1024 ** 2;
const BYTES_MAX = new Map([[MANIFEST, 24 * MB], [DISCLOSURES, 16 * MB], [PAGE, 2 * MB], [POPULATION, 64 * MB]]);
const ENTRIES_BYTES_MAX = 256 * (2 + 65535), INFLATED_BYTES_MAX = 256 * MB;
const TILE = /^log\/tile\/(entries|[0-9]|[1-5][0-9]|6[0-3])\/((?:x[0-9]{3}\/)*[0-9]{3})(?:\.p\/([1-9][0-9]{0,2}))?$/;

function tileName(level, index, width) {
  let digits = String(index).padStart(3, "0");
  digits = digits.padStart(Math.ceil(digits.length / 3) * 3, "0");
  const groups = digits.match(/.{3}/g);
  const path = [...groups.slice(0, -1).map((group) => "x" + group), groups.at(-1)].join("/");
  return `log/tile/${level}/${path}` + (width === 256 ? "" : `.p/${width}`);
}

function tilePosition(name) {
  const match = TILE.exec(name);
  if (match === null) return null;
  const index = Number(match[2].replaceAll(/[x/]/g, "")), width = match[3] ? Number(match[3]) : 256;
  if (index > 2 ** 40 || tileName(match[1], index, width) !== name) return null;
  return {level: match[1], index, width};
}

function bytesMax(name) {
  if (name.startsWith("log/tile/")) return name.startsWith("log/tile/entries/") ? 256 * (2 + 65535) : 256 * 32;
  if (name === MULTIPROOF) return 64 * MB;
  if (name === INDEX || name.startsWith("epochs/") || name.startsWith("policy/")) return 16 * MB;
  return name.startsWith("records/") ? ENTRIES_BYTES_MAX : BYTES_MAX.get(name) ?? MB;
}

function memberName(raw) {
  if (raw.length > 128) throw new Unreadable("V01.bounds", "a name is longer than 128 characters");
  if (raw.some((byte) => byte > 127)) throw new Unreadable("V01.name", "a name is not ASCII");
  const name = String.fromCharCode(...raw);
  const plain = [...REQUIRED, "README.txt", PAGE, POPULATION, INDEX, MULTIPROOF];
  if (plain.includes(name) || /^policy\/[0-9a-f]{64}\.json$/.test(name) || tilePosition(name)) return name;
  if (name.startsWith("records/") && tilePosition("log/tile/entries/" + name.slice(8))) return name;
  if (/^epochs\/(?:0|[1-9][0-9]{0,15})\.json$/.test(name)) return name;
  throw new Unreadable("V01.name", `${JSON.stringify(name)} is no member of a pack`);
}

const CRC = Uint32Array.from({length: 256}, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});
function crc32(raw) {
  let value = 0xffffffff;
  for (let at = 0; at < raw.length; at++) value = CRC[(value ^ raw[at]) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

// V01. Every byte of the file is a member's data or a field that is checked here; members in the order of the file.
function openPack(data) {
  if (data.length > PACK_BYTES_MAX) {
    throw new Unreadable("V01.browser", `more than ${PACK_BYTES_MAX} bytes: use countermark-verify, which reads 4 GiB`);
  }
  const bad = (message) => { throw new Unreadable("V01.zip", message); };
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const u16 = (at) => view.getUint16(at, true), u32 = (at) => view.getUint32(at, true);
  if (data.length < 22) bad("too short to be a zip file");
  const end = data.length - 22;
  const count = u16(end + 10), directory = u32(end + 16), length = u32(end + 12);
  if (u32(end) !== 0x06054b50 || u16(end + 4) || u16(end + 6) || u16(end + 8) !== count || u16(end + 20)) {
    bad("no end-of-directory record at the end of the file");
  }
  if (count > 65534 || directory === 0xffffffff || length === 0xffffffff) {
    throw new Unreadable("V01.bounds", "too many members, or zip64");
  }
  if (directory + length !== end) bad("the directory is not where the file says");
  const entries = [];
  let at = directory;
  for (let number = 0; number < count; number++) {
    if (at + 46 > end) bad("the directory ends early");
    const size = u16(at + 28);
    if (at + 46 + size > end) bad("the directory ends early");
    const name = memberName(data.subarray(at + 46, at + 46 + size));
    const member = (message, code = "V01.member") => { throw new Unreadable(code, `${name} ${message}`); };
    if (u32(at) !== 0x02014b50) bad("an entry of the directory is damaged");
    if (u16(at + 10) || u32(at + 20) !== u32(at + 24) || ![0, 0x800].includes(u16(at + 8))) {
      member("is compressed, encrypted or streamed");
    }
    if (u16(at + 30) || u16(at + 32) || u16(at + 34) || u16(at + 36) || u16(at + 12) || u16(at + 14) !== 0x21) {
      member("has an extra field, a comment or another date");
    }
    const outer = u32(at + 38), needed = u16(at + 6), made = u16(at + 4);
    if (outer & 0xffff || ![0, 0o100000].includes((outer >>> 16) & 0o170000) || ![10, 20].includes(needed)
        || (made & 255) > 63) member("is not a plain stored file");
    if (u32(at + 24) > bytesMax(name)) member(`is larger than ${bytesMax(name)} bytes`, "V01.bounds");
    const dressing = [made, needed, u16(at + 8), outer].join();
    if (entries.length && entries.at(-1).name >= name) member("is not in the order of names, or twice", "V01.order");
    if (entries.length && entries.at(-1).dressing !== dressing) member("has attributes of its own");
    entries.push({name, dressing, shared: data.subarray(at + 6, at + 28), crc: u32(at + 16), size: u32(at + 24),
                  offset: u32(at + 42)});
    at += 46 + size;
  }
  if (at !== end) bad("bytes after the directory's last entry");
  const members = new Map();
  let place = 0;
  for (const {name, shared, crc, size, offset} of entries) {
    if (offset !== place) bad(`bytes outside members before ${name}`);
    if (place + 30 > data.length) bad(`${name} lies outside the file`);
    const start = place + 30 + u16(place + 26);
    // The local header repeats version, flags, method, time, date, checksum, both sizes and the name's length.
    if (u32(place) !== 0x04034b50 || u16(place + 28) || !same(data.subarray(place + 4, place + 26), shared.subarray(0, 22))
        || start > data.length || !same(data.subarray(place + 30, start), bytesOf(name))) {
      throw new Unreadable("V01.member", `${name} has another local header than the directory says`);
    }
    if (start + size > data.length) bad(`${name} lies outside the file`);
    members.set(name, data.subarray(start, start + size));
    place = start + size;
    if (crc32(members.get(name)) !== crc) throw new Unreadable("V01.crc", `${name} does not have its checksum`);
  }
  if (place !== directory) bad("bytes outside members before the directory");
  for (const name of REQUIRED) if (!members.has(name)) throw new Unreadable("V01.missing", `${name} is missing`);
  return members;
}

const SHORT = text(null, 1000);
const BUNDLE_SHAPE = record({
  mediaType: constant("application/vnd.dev.sigstore.bundle.v0.3+json"),
  verificationMaterial: record({publicKey: record({hint: SHORT}), tlogEntries: fixed()}),
  dsseEnvelope: record({
    payload: text(null, 24 * MB), payloadType: constant("application/vnd.in-toto+json"),
    signatures: fixed(record({keyid: SHORT, sig: text("[A-Za-z0-9+/]{86}==")})),
  }),
});
const SCOPE_NAME = text("[^\\u0000-\\u001f]+", 1000), SCOPE_TIMES = {from: integer(), to: integer()};
const SCOPE = either(
  record({kind: constant("period"), ...SCOPE_TIMES}),
  record({kind: constant("case"), run: SCOPE_NAME, action: maybe(text("act_[0-9a-f]{32}")), ...SCOPE_TIMES}),
  record({kind: constant("agent"), agent: SCOPE_NAME, day: text("[0-9]{4}-[0-9]{2}-[0-9]{2}"), zone: text(null, 100), ...SCOPE_TIMES}),
  record({kind: constant("workflow"), workflow: text("[a-z0-9][a-z0-9._-]{0,63}"), day: text("[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    zone: text(null, 100), ...SCOPE_TIMES}));
const STATEMENT_SHAPE = record({
  _type: constant("https://in-toto.io/Statement/v1"),
  subject: listing(record({name: SHORT, digest: record({sha256: text("[0-9a-f]{64}")})}), 65534),
  predicateType: constant("urn:countermark:pack:v1"),
  predicate: record({
    v: constant(1), deployment: SHORT, lane: SHORT, origin: SHORT, size: integer(0), root: text("[A-Za-z0-9+/]{43}="),
    withheld: integer(0), erased: integer(0), disclosed: integer(0), scope: SCOPE,
  }, ["scope"]),
});

function readManifest(raw) {
  const document = parse(raw, 24 * MB);
  let reason = BUNDLE_SHAPE(document);
  if (reason) throw new Malformed(`does not have the shape of a manifest${reason}`);
  const envelope = document.dsseEnvelope, payload = decode64(envelope.payload);
  const statement = parse(payload, 24 * MB);
  if ((reason = STATEMENT_SHAPE(statement))) throw new Malformed(`does not have the shape of a statement${reason}`);
  const [{keyid, sig}] = envelope.signatures;
  if (keyid !== document.verificationMaterial.publicKey.hint) throw new Malformed("names two keys");
  const type = envelope.payloadType;
  const pae = joined(bytesOf(`DSSEv1 ${type.length} ${type} ${payload.length} `), payload);
  return {keyName: keyid, signature: decode64(sig), signed: pae, predicate: statement.predicate,
          subjects: statement.subject.map((item) => [item.name, item.digest.sha256])};
}

// C2SP signed notes, checkpoints, cosignatures and verifier keys.
const NOTE_NAME = /^[^\s+\u0000-\u0020\u007f]{1,200}$/u;
function verifierKey(written, kind) {
  const [name, hexId, ...rest] = written.split("+");
  if (hexId === undefined || !rest.length || !NOTE_NAME.test(name)) throw new Malformed("is not written NAME+HEXID+BASE64");
  const data = decode64(rest.join("+"));
  if (data[0] !== kind) throw new Malformed(`is not a verifier key of type ${kind}`);
  const key = checkKey(data.subarray(1));
  const id = hexOf(sha256(bytesOf(`${name}\n`), data).subarray(0, 4));
  if (hexId !== id) throw new Malformed("does not have the key ID of its key");
  return {name, id, key, text: written};
}

function parseCheckpoint(raw) {
  if (raw.length > MB) throw new Malformed("is longer than a note may be");
  const note = textOf(raw), cut = note.indexOf("\n\n");
  const body = note.slice(0, Math.max(cut, 0)).split("\n");
  if (cut < 0 || body.length !== 3) throw new Malformed("is not origin, size and root, an empty line and signatures");
  const [origin, size, root64] = body;
  if (!NOTE_NAME.test(origin) || !/^(?:0|[1-9][0-9]{0,15})$/.test(size) || Number(size) > INTEGER_MAX) {
    throw new Malformed("has an ill-formed origin or size");
  }
  const root = decode64(root64), lines = note.slice(cut + 2).split("\n");
  if (root.length !== 32) throw new Malformed("has a root that is not 32 bytes");
  if (lines.at(-1) !== "" || lines.length < 2 || lines.length > 65) throw new Malformed("has no signature lines, or too many");
  const signatures = lines.slice(0, -1).map((line) => {
    const parts = line.split(" ");
    if (parts.length !== 3 || parts[0] !== "\u2014" || !NOTE_NAME.test(parts[1])) {
      throw new Malformed("has an ill-formed signature line");
    }
    const data = decode64(parts[2]);
    if (data.length < 5) throw new Malformed("has a signature line without a signature");
    return {name: parts[1], id: hexOf(data.subarray(0, 4)), payload: data.subarray(4)};
  });
  return {text: bytesOf(note.slice(0, cut) + "\n"), origin, size: Number(size), root, lines: signatures};
}

async function lineSigned(head, key, cosigned) {
  const lines = head.lines.filter((line) => line.name === key.name && line.id === key.id);
  let timed = true;  // a cosignature of no time says nothing about when
  if (!lines.length) return null;
  if (cosigned && lines.length > 1) return false;
  for (const line of lines) {
    let message = head.text, signature = line.payload;
    if (cosigned) {
      if (signature.length !== 72) return false;
      const time = new DataView(joined(signature).buffer).getBigUint64(0);
      message = joined(bytesOf(`cosignature/v1\ntime ${time}\n`), head.text);
      signature = signature.subarray(8);
      timed = time > 0n;
    }
    if (!await signed(key.key, signature, message)) return false;
  }
  return timed ? true : null;
}

// The auditor's trust file. What is wrong with it is an error of use, not of the pack.
const ORIGIN = /^countermark\/([A-Za-z0-9_.-]{1,100})\/([A-Za-z0-9_.-]{1,64})$/;
const TRUST_SHAPE = record({
  v: constant(1), log: record({origin: text(), keys: listing(text(null, 2048), 1000)}),
  people: mapping(either(listing(text(null, 768), 1000), text(null, 768)), null, 1000),
  heads: listing(record({size: integer(0), root: SHORT, source: SHORT, origin: text(null, 300), verified: boolean,
    at: integer(1)}, ["origin", "verified", "at"]), 100000),
  witnesses: record({quorum: integer(1, 1000),
                     keys: listing(record({key: text(null, 2100), operator: text("\\S.{0,99}")}), 1000)}),
  leaf_hashes: record({from: integer(0), hashes: listing(text("[0-9a-f]{64}"), 4000000)}),
  stamps: listing(anything, 16), chains: listing(anything, 1000), compromised: listing(anything, 1000),  // of steps taken elsewhere
}, ["people", "heads", "witnesses", "leaf_hashes", "stamps", "chains", "compromised"]);

const SECOND = /\+[0-9a-f]{8}\+B[g-v]/;
async function readTrust(raw) {
  if (raw.length > TRUST_BYTES_MAX) throw new Malformed("is larger than this page reads");
  const document = parseLoose(textOf(raw)), reason = TRUST_SHAPE(document);
  if (reason) throw new Malformed(`does not have the shape of a trust file${reason}`);
  const {origin} = document.log, named = ORIGIN.exec(origin);
  if (named === null) throw new Malformed("has a log.origin that is not countermark/DEPLOYMENT/LANE");
  // ML-DSA keys (type 6, whose text begins with "B" and one of g to v) sign beside Ed25519, and no browser checks them yet.
  const keys = document.log.keys.filter((written) => !SECOND.test(written)).map((written) => verifierKey(written, 1));
  if (keys.some((key) => key.name !== origin)) throw new Malformed("has a log key that is not named like log.origin");
  const people = new Map();
  for (const [name, written] of Object.entries(document.people ?? {})) {
    people.set(name, [written].flat());
    for (const key of people.get(name)) {
      if (key.startsWith("webauthn:")) await parsePasskey(key); else parseKey(key);
    }
  }
  const heads = (document.heads ?? []).map((head) => {
    const whose = head.origin ?? origin, root = decode64(head.root);
    if (!ORIGIN.test(whose) || whose.slice(0, whose.lastIndexOf("/")) !== origin.slice(0, origin.lastIndexOf("/"))) {
      throw new Malformed(`has a head of size ${head.size} that is of another deployment`);
    }
    if (root.length !== 32) throw new Malformed(`has a head of size ${head.size} whose root is not 32 bytes`);
    return {size: head.size, root, source: head.source, origin: whose, verified: head.verified === true};
  }).sort((a, b) => a.size - b.size);
  const witnesses = document.witnesses ?? {quorum: 0, keys: []};
  const leaves = document.leaf_hashes ?? {from: 0, hashes: []};
  return {
    origin, deployment: named[1], keys, people, quorum: witnesses.quorum,
    heads: heads.filter((head) => head.origin === origin && head.size > 0), foreign: heads.filter((head) => head.origin !== origin),
    witnesses: witnesses.keys.map((item) => ({key: SECOND.test(item.key) ? null : verifierKey(item.key, 4), operator: item.operator})),
    leafFrom: leaves.from, leaves: leaves.hashes, second: keys.length < document.log.keys.length,
    stamps: Boolean(document.stamps?.length), chains: Boolean(document.chains?.length), keysEver: new Set(keys.map((key) => key.text)), compromised: Boolean(document.compromised?.length),
  };
}

// The Merkle tree of RFC 6962: leaves are added one by one; hashes of levels 0, 8, 16 make the tiles.
const EMPTY_ROOT = sha256();
const ZERO_BYTE = Uint8Array.of(0), ONE_BYTE = Uint8Array.of(1);
const node = (left, right) => sha256(ONE_BYTE, left, right);
class Tree {
  constructor() { this.size = 0; this.levels = []; }
  append(leaf) {
    let value = leaf, at = this.size++;
    for (let level = 0; ; level++) {
      (this.levels[level] ??= []).push(value);
      if (at % 2 === 0) return;
      value = node(this.levels[level].at(-2), value);
      at = (at - 1) / 2;
    }
  }
  rootAt(size) {
    if (size === 0) return EMPTY_ROOT;
    let root = null, end = size;
    for (let level = 0; 2 ** level <= size; level++) {
      if (Math.floor(size / 2 ** level) % 2 === 0) continue;
      end -= 2 ** level;
      const left = this.levels[level][end / 2 ** level];
      root = root === null ? left : node(left, root);
    }
    return root;
  }
  *tiles() {
    for (let tile = 0; 8 * tile < this.levels.length; tile++) {
      const hashes = this.levels[8 * tile];
      for (let first = 0; first < hashes.length; first += 256) {
        const content = hashes.slice(first, first + 256);
        yield {name: tileName(String(tile), first / 256, content.length), tile, index: first / 256, content};
      }
    }
  }
}

function* entryNames(size) {
  for (let first = 0; first < size; first += 256) {
    const width = Math.min(256, size - first);
    yield [tileName("entries", first / 256, width), width];
  }
}

// ---------------------------------------------------------------- part 3: records

const DIGEST = text("sha256:[0-9a-f]{64}"), HEX32 = text("[0-9a-f]{32}"), NATURAL = integer(0), TEXT = text();
const AGENT_KEY = text("ed25519:[A-Za-z0-9+/]{43}="), KEY_TEXT = either(text(PASSKEY.source.slice(1, -1), 768), AGENT_KEY);
const URL64 = "[A-Za-z0-9_-]+", ALIAS = "[A-Za-z0-9_.$-]{1,64}";
const SIGNATURE = either(
  record({authenticator_data: text(URL64, 1366), client_data: text(URL64, 5462), signature: text(URL64, 171)}),
  text("[A-Za-z0-9+/]{86}=="));
const ACTION_ID = text("act_[0-9a-f]{32}"), ESCALATION_ID = text("esc_[0-9a-f]{32}");
const KILL_ID = text("kill_[0-9a-f]{16}"), NAME = text("[^\\u0000-\\u001f]+", 1000);
const READER = text("uid:(?:0|[1-9][0-9]{0,9})|person:[^\\u0000-\\u001f]+", 1007);
const LABEL = text("[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*", 64);
const REF = text("[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*", 256);
const MESSAGE = text("[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*", 500);
const plainWords = text("[^\\u0000-\\u0008\\u000b-\\u001f\\u007f]*", 500);
const words = (value) => plainWords(value) || (value.trim() ? "" : ": no words");
const SEALED = record({$sd: DIGEST});
const TERMS = record({amount: maybe(NATURAL), currency: maybe(NAME), payee: maybe(NAME)});
const TIER = constant("enforcing", "embedded", "observing");
const CALL = {agent: NAME, run: NAME};
const MANDATE = record({
  v: constant(1), deployment: NAME, parent: maybe(DIGEST), principal: NAME, agent: NAME, agent_key: maybe(AGENT_KEY),
  tools: listing(NAME), payees: listing(NAME),
  limits: listing(record({currency: NAME, amount: NATURAL, over_us: maybe(NATURAL)})), named: listing(HEX32),
  purpose: TEXT, not_before: integer(), not_after: integer(), nonce: TEXT,
});
const REFERENCE = record({digest: DIGEST, last4: text("[A-Za-z0-9]{0,4}")});
const APPROVAL = record({
  v: constant(1), deployment: NAME, escalation: ESCALATION_ID, ladder: NAME, ids: listing(NAME), rung: integer(),
  verdict: constant("approve", "refuse"), person: NAME, action: DIGEST, request: DIGEST, bundle: DIGEST,
  mandate: DIGEST, terms: TERMS, not_after: integer(), reference: DIGEST,
}, ["reference"]);
const FACT = either(integer(), boolean, listing(text(ALIAS)), record({known: boolean}),
  record({known: boolean, age_s: integer()}), record({known: boolean, equal: boolean}));
const SIGNED_BY = record({person: NAME, key: KEY_TEXT, sig: SIGNATURE}), FOUR_EYES = fixed(SIGNED_BY, SIGNED_BY);
const PAIRS = listing(fixed(text(ALIAS), TEXT), 64);
const ESCALATED = {escalation: ESCALATION_ID, id: ACTION_ID, ...CALL};
const PAYEE = text("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}");
const ACCOUNT = text("[^\\u0000-\\u0020\\u007f-\\u00a0\\u2028\\u2029]*", 200);
const plainTitle = text("[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]+", 200);
const TITLE = (value) => plainTitle(value) || (value.trim() ? "" : ": no name");
const LANE = text("l(?:0|[1-9][0-9]{0,3})"), HEX64 = text("[0-9a-f]{64}");

const NODES = listing(text("[A-Za-z0-9+/]+={0,2}", 21848), 16);  // of a trie, from the root
const BODIES = {
  "gate.started": record({deployment: NAME, version: TEXT, schema: either(TEXT, integer()), log_key: TEXT, tier: TIER,
    uid: either(TEXT, integer(), nothing), recovered: NATURAL}),
  "gate.stopped": record({reason: TEXT}),
  "policy.activated": record({
    activation: record({deployment: NAME, bundle: DIGEST, previous: maybe(DIGEST), author: NAME, activator: NAME}),
    key: KEY_TEXT, sig: SIGNATURE, second: SIGNED_BY}, ["second"]),
  "mandate.granted": record({mandate: MANDATE, digest: DIGEST, key: KEY_TEXT, sig: SIGNATURE}),
  "mandate.accepted": record({source: NAME, ap2: text("[!-~]+", 24000), mandate: MANDATE, digest: DIGEST,
    redeems: listing(DIGEST, 2)}),
  "mandate.revoked": record({
    revocation: record({deployment: NAME, mandate: DIGEST, person: NAME, reason: words}), key: KEY_TEXT, sig: SIGNATURE}),
  "action.refused": record({agent: TEXT, run: TEXT, call_id: TEXT, tool: TEXT, code: TEXT, field: TEXT}),
  "request.signed": record({id: ACTION_ID, ...CALL, call_id: NAME, key: AGENT_KEY,
    covered: listing(fixed(text("[a-z@-]{1,32}"), TEXT), 16), params: TEXT, sig: SIGNATURE, body: maybe(TEXT)}),
  "action.decided": record({
    id: ACTION_ID, ...CALL, call_id: NAME, tool: NAME, args: mapping(either(TEXT, integer(), boolean, SEALED), ALIAS),
    action: DIGEST, request: DIGEST, salt: maybe(HEX32), key: text("cm_[0-9a-f]{48}"),
    claimed: record({because: listing(ACTION_ID), reason: maybe(SEALED), model: TEXT, trace: TEXT}), terms: TERMS,
    obligation: maybe(DIGEST), named: mapping(HEX32, ALIAS), mandates: listing(DIGEST),
    budgets: listing(fixed(DIGEST, NATURAL, NATURAL)), bundle: DIGEST, facts: mapping(FACT),
    disposition: constant("allow", "flag", "escalate", "deny"),
    stage: constant("kill", "boundary", "witness", "mandate", "payee", "obligation", "facts", "policy", "approval", "monitor"), code: NAME,
    reasons: listing(TEXT), escalation: maybe(ESCALATION_ID), lifted: listing(NAME), not_after: integer(), tier: TIER,
    reference: maybe(REFERENCE)}, ["reference"]),
  "action.settled": record({
    id: ACTION_ID, ...CALL, tool: NAME, intent: NATURAL, intent_digest: DIGEST, terms: TERMS,
    outcome: constant("confirmed", "failed", "unknown"), code: TEXT, ref: TEXT,
    settled: maybe(record({amount: NATURAL, currency: maybe(NAME)})), http_status: NATURAL, request_id: TEXT,
    response: either(constant(""), DIGEST), attempts: NATURAL, output: mapping(anything),
    via: constant("execute", "recovery", "lookup", "report", "people"), tier: TIER, reference: REFERENCE,
    evidence: record({chain_id: integer(1), block: record({number: NATURAL, hash: HEX64}), header: text("[A-Za-z0-9+/]+={0,2}", 2732),
      index: integer(0, 9999), transaction: NODES, receipt: NODES})}, ["reference", "evidence"]),
  "action.resolved": record({id: ACTION_ID, ...CALL, terms: TERMS, intent: NATURAL,
    resolution: record({v: constant(1), deployment: NAME, action: ACTION_ID, intent_digest: DIGEST,
      outcome: constant("confirmed", "failed"), ref: REF, amount: maybe(NATURAL), reason: words}), signed: FOUR_EYES}),
  "obligation.reopened": record({id: ACTION_ID, ...CALL, terms: TERMS, refused: NATURAL,
    reopening: record({v: constant(1), deployment: NAME, action: ACTION_ID, refusal_digest: DIGEST, reason: words}),
    signed: FOUR_EYES}),
  "escalation.raised": record({...ESCALATED, decided: NATURAL, decided_digest: DIGEST, ladders: mapping(listing(NAME)),
    action: DIGEST, request: DIGEST, terms: TERMS, bundle: DIGEST, mandate: DIGEST, due: mapping(integer()),
    not_after: integer(), reference: REFERENCE}, ["reference"]),
  "escalation.climbed": record({...ESCALATED, terms: TERMS, ladder: NAME, rung: integer(1),
    because: constant("deadline", "unreachable"), due: integer()}),
  "escalation.answered": record({...ESCALATED, terms: TERMS, approval: APPROVAL, key: KEY_TEXT, sig: SIGNATURE,
    state: constant("pending", "approved", "refused")}),
  "escalation.expired": record({...ESCALATED, terms: TERMS, because: constant("cancelled", "policy")}, ["because"]),
  "key.enrolled": record({enrolment: record({v: constant(1), deployment: NAME, person: NAME, key: KEY_TEXT, label: LABEL,
    nonce: HEX32, not_after: NATURAL}), signed: listing(SIGNED_BY, 2), proof: maybe(SIGNATURE)}),
  "key.removed": record({removal: record({v: constant(1), deployment: NAME, person: NAME, key: KEY_TEXT, by: NAME,
    reason: words}), key: KEY_TEXT, sig: SIGNATURE}),
  "absence.set": record({absence: record({v: constant(1), deployment: NAME, person: NAME, stands_in: NAME,
    from: NATURAL, until: NATURAL}), signed: listing(SIGNED_BY, 2)}),
  "kill.set": record({scope: record({kind: constant("deployment", "agent", "tool", "mandate", "payee"), value: TEXT}),
    reason: TEXT, kill: KILL_ID}),
  "kill.cleared": record({clearance: record({deployment: NAME, kill: KILL_ID, person: NAME, reason: words}),
    key: KEY_TEXT, sig: SIGNATURE}),
  "review.cleared": record({id: ACTION_ID, decided: NATURAL, review: record({deployment: NAME, action: ACTION_ID,
    decided_digest: DIGEST, person: NAME, note: words}), key: KEY_TEXT, sig: SIGNATURE}),
  "obligation.imported": record({obligation: DIGEST, import: record({v: constant(1), deployment: NAME, tool: NAME,
    pairs: PAIRS, ref: REF, date: text("[0-9]{4}-[0-9]{2}-[0-9]{2}"), source: words}), signed: FOUR_EYES}),
  "log.read": record({reader: READER, what: constant("export", "explain", "audit"), from: NATURAL, to: NATURAL}),
  "payee.changed": record({details: record({v: constant(1), deployment: NAME, payee: PAYEE, name: TITLE,
    account: ACCOUNT, previous: maybe(record({account: ACCOUNT, record: maybe(DIGEST)})), alike: listing(PAYEE, 64),
    reason: words, person: NAME, not_after: NATURAL, nonce: HEX32}), key: KEY_TEXT, sig: SIGNATURE,
    was: maybe(text("p:[0-9a-f]{32}")), now: maybe(text("p:[0-9a-f]{32}"))}),
  "lane.succeeded": record({lane: LANE, log_key: NAME,
    predecessor: record({lane: LANE, size: NATURAL, root: HEX64, log_key: NAME}),
    known: maybe(record({size: NATURAL, root: HEX64})),
    activity: record({since: integer(), until: integer(), asked: listing(NAME), unasked: listing(NAME), found: NATURAL,
      digest: DIGEST})}),
  "lane.imported": record({ref: TEXT, key: TEXT, tool: TEXT, terms: TERMS, pairs: maybe(PAIRS),
    obligation: maybe(DIGEST), moved_at: integer()}),
  "lane.accepted": record({acceptance: record({deployment: NAME, lane: LANE, succession: DIGEST, imported: NATURAL,
    bundle: DIGEST, person: NAME}), key: KEY_TEXT, sig: SIGNATURE}),
};
const PUBLISHED = {size: NATURAL, root: HEX64, asked: NATURAL, answered: NATURAL}, HOLD_ID = text("hold_[0-9a-f]{16}");
const SUBJECT = text("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}|p:[0-9a-f]{32}|agent:[a-z0-9][a-z0-9_.-]{0,63}");
const SHORT_LINE = text("[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*", 200);
const CHAIN_BYTES = text("[A-Za-z0-9+/]*={0,2}", 32768), ADDRESS = text("0x[0-9a-f]{40}");
const ANCHOR = record({size: integer(1), root: HEX64, chain_id: integer(1), contract: ADDRESS, sequence: integer(1), previous: HEX64,
  tx: CHAIN_BYTES, receipt: CHAIN_BYTES, proof: record({index: integer(0), receipt: listing(CHAIN_BYTES, 16), tx: listing(CHAIN_BYTES, 16)}),
  header: CHAIN_BYTES, block: record({number: integer(0), hash: HEX64}), log_index: integer(0)});
Object.assign(BODIES, {
  "key.rotated": record({rotation: record({v: constant(1), deployment: NAME, lane: NAME, old: AGENT_KEY, new: AGENT_KEY,
    until: NATURAL, reason: words}), proofs: record({old: SIGNATURE, new: SIGNATURE}), signed: listing(SIGNED_BY, 2)}),
  "epoch.closed": record({epoch: NATURAL, from: NATURAL, size: NATURAL, until: integer(), root: HEX64, streams: NATURAL,
    manifest: HEX64}),
  "head.stamped": record({...PUBLISHED, size: integer(1), authority: LABEL, token: text("[A-Za-z0-9+/]+={0,2}", 32000)}),
  "anchor.published": (value) => ANCHOR(value)
    || ([value.tx, value.receipt, value.header, ...value.proof.receipt, ...value.proof.tx].join("").length > 32768 ? ": too long" : ""),
  "head.witnessed": record({...PUBLISHED, note: text(null, 65536)}),
  "hold.set": record({order: record({v: constant(1), deployment: NAME, hold: HOLD_ID, scope: either(
    ...[["subject", SUBJECT], ["payee", PAYEE], ["agent", text("[a-z0-9][a-z0-9_.-]{0,63}")], ["run", text("run_[0-9a-f]{32}")],
      ["all", constant("")]].map(([kind, value]) => record({kind: constant(kind), value}))), reason: words, person: NAME}),
    key: KEY_TEXT, sig: SIGNATURE}),
  "hold.cleared": record({hold: HOLD_ID, release: record({v: constant(1), deployment: NAME, hold: HOLD_ID, reason: words}),
    signed: FOUR_EYES}),
  "data.erased": record({erasure: record({v: constant(1), deployment: NAME, subject: SUBJECT, generation: NATURAL,
    records: integer(1), values: integer(1), digest: DIGEST, reason: words}), retention: record({keep_s: NATURAL, until: NATURAL}),
    signed: FOUR_EYES}),
  "data.disclosed": record({reader: READER, to: SHORT_LINE, reason: SHORT_LINE, fields: listing(text(ALIAS), 64), size: integer(1),
    count: NATURAL}),
});
// Runs and workflows: values are at most eight deep, names are those of expressions.
const nested = (value, left) => value === null || typeof value !== "object" ? ""
  : left === 0 ? ": nested too deep" : Object.values(value).map((item) => nested(item, left - 1)).find(Boolean) ?? "";
const VALUE = (value) => nested(value, 8), VALUES = mapping(VALUE, "[A-Za-z_][A-Za-z0-9_-]{0,39}");
const STEP_PLACE = text("[A-Za-z_][A-Za-z0-9_-]{0,39}\\.(?:(?:0|[1-9][0-9]?)\\.)?[A-Za-z_][A-Za-z0-9_-]{0,39}");
const FLOW_NAME = text("[a-z0-9][a-z0-9._-]{0,63}"), STEP = {...CALL, place: STEP_PLACE}, EVENT_NAME = text(null, 1000);
const STARTED = {...CALL, mandate: DIGEST, purpose: TEXT};
const FLOW = {definition: DIGEST, name: FLOW_NAME, bundle: DIGEST, code: listing(DIGEST),
  trigger: record({kind: constant("manual", "schedule", "webhook", "chain", "call"), event: EVENT_NAME, record: maybe(NATURAL)}),
  parent: maybe(record({run: NAME, place: STEP_PLACE}))};
const ENDED = {name: FLOW_NAME, status: constant("success", "failure", "cancelled"), undone: listing(STEP_PLACE), left: listing(STEP_PLACE)};
const COMPUTED = {...STEP, attempt: integer(1), engine: LABEL, code: DIGEST, ticks: NATURAL,
  limits: record({ticks: integer(1), memory_mb: integer(1), seconds: integer(1)})};
const RESUMED = {...STEP, status: constant("success", "failure"), code: constant("time", "event", "ended", "timeout", "cancelled", "unfit"),
  event: maybe(NATURAL)};
// Of a sealed run: whose the value is, a salted digest in its place, and no digest of it without a salt.
const OF = {subject: text("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")}, UNSAID = {input: constant(null), result: constant(null)};
const OF_A_RUN = new Set(["run.started", "compute.executed", "step.resumed", "run.ended"]);
Object.assign(BODIES, {
  "run.started": either(record({...STARTED, workflow: record({...FLOW, inputs: SEALED}), ...OF}), record({...STARTED,
    workflow: record({...FLOW, inputs: VALUES}), boundary: record({
    parent: NAME, place: STEP_PLACE, goal: TEXT, tools: listing(NAME), calls: integer(1), until: NATURAL,
    budget: listing(fixed(NAME, NATURAL)), where: listing(fixed(NAME, NAME, listing(VALUE))), sees: VALUES,
    outputs: mapping(constant("string", "int", "bool", "list", "object"), "[A-Za-z_][A-Za-z0-9_-]{0,39}")})},
  ["workflow", "boundary"])),
  "run.ended": either(record({...CALL, reason: TEXT, workflow: record({...ENDED, outputs: SEALED}), ...OF}),
    record({...CALL, reason: TEXT, outputs: VALUES, workflow: record({...ENDED, outputs: VALUES})}, ["outputs", "workflow"])),
  "run.cancelled": record({...CALL, reason: TEXT, person: either(constant(""), NAME)}),
  "run.migrated": record({...CALL, from: DIGEST, to: DIGEST, reason: words, person: NAME, key: KEY_TEXT, sig: SIGNATURE}),
  "workflow.defined": record({digest: DIGEST, document: mapping(anything)}),
  "compute.executed": either(
    record({...COMPUTED, ...UNSAID, status: constant("ok"), output: SEALED, message: constant(""), ...OF}),
    record({...COMPUTED, ...UNSAID, status: constant("error", "limit"), output: constant(null), message: SEALED, ...OF}),
    record({...COMPUTED, input: DIGEST, status: constant("ok", "error", "limit"), output: maybe(VALUES), result: maybe(DIGEST),
      message: MESSAGE})),
  "step.waiting": record({...STEP, until: maybe(NATURAL), for: either(record({kind: constant("time"), at: NATURAL}),
    record({kind: constant("event"), source: NAME, key: TEXT}), record({kind: constant("call", "agent"), run: NAME}))}),
  "step.resumed": either(record({...RESUMED, outputs: SEALED, ...OF}), record({...RESUMED, outputs: VALUES})),
  "event.received": record({source: NAME, event: EVENT_NAME, key: TEXT, payload: VALUE, digest: DIGEST, scheme: LABEL, evidence: VALUE}),
});
const ENVELOPE = record({
  v: constant(1), lane: text("[A-Za-z0-9_.-]{1,64}"), seq: NATURAL, prev: DIGEST, at: NATURAL, nonce: HEX32,
  kind: (value) => typeof value === "string" && has(BODIES, value) ? "" : ": not a known kind",
  by: text("gate|(?:agent|person):[^\\u0000-\\u001f]*", 1010),
  streams: mapping(fixed(NATURAL, DIGEST), "g|[arpw]\\.[0-9a-f]{32}"), body: mapping(anything),
});
const WRITERS = {
  "lane.accepted": ["acceptance", "person"], "policy.activated": ["activation", "activator"],
  "mandate.granted": ["mandate", "principal"], "mandate.revoked": ["revocation", "person"],
  "kill.cleared": ["clearance", "person"], "review.cleared": ["review", "person"], "key.removed": ["removal", "by"],
  "payee.changed": ["details", "person"], "hold.set": ["order", "person"], "escalation.answered": ["approval", "person"],
};

function writer(kind, body) {
  if (kind === "run.migrated") return `person:${body.person}`;
  if (has(WRITERS, kind)) return `person:${body[WRITERS[kind][0]][WRITERS[kind][1]]}`;
  if (["run.started", "run.ended", "action.refused", "request.signed"].includes(kind)) return `agent:${body.agent}`;
  return kind === "action.decided" && body.escalation === null ? `agent:${body.agent}` : "gate";
}

function parseRecord(raw) {
  const value = parse(raw);
  let reason = ENVELOPE(value);
  if (reason) throw new Malformed(`does not have the envelope${reason}`);
  if ((reason = BODIES[value.kind](value.body))) throw new Malformed(`does not have the body of ${value.kind}${reason}`);
  return value;
}

const streamOf = (letter, name) => `${letter}.${digest("stream", bytesOf(render([letter, name]))).slice(7, 39)}`;

// V06: the lane's order and the order within every stream; goes on from each record as it stands.
class Order {
  // `whole`: nothing is left out; else only neighbours are compared, and the general stream alone has no gap.
  constructor(ledger, whole) {
    Object.assign(this, {ledger, whole, place: -1, prev: ZERO, at: 0, lane: null, nonces: new Set(), streams: new Map(), unread: [],
                         nameOf: new Map(), streamOf: new Map(), own: new Map()});
  }
  unreadable(place, itsDigest) { this.place = place; this.prev = itsDigest; this.unread.push([place, itsDigest]); }
  check(place, found, itsDigest) {
    const {ledger} = this, refute = (code, why, expected, actual) => ledger.refute(code, why, place, expected, actual);
    ledger.ran("V06", 1);
    if (found.seq !== place) refute("V06.seq", "the record has another seq than its place", place, found.seq);
    if ((this.whole || place === this.place + 1) && found.prev !== this.prev) refute("V06.prev", "prev is not the digest of the record before", this.prev, found.prev);
    if (found.at < this.at) refute("V06.at", "the time falls", this.at, found.at);
    if (this.lane === null || found.kind === "lane.succeeded") this.lane = found.lane;
    else if (found.lane !== this.lane) refute("V06.seq", "the record is of another lane", this.lane, found.lane);
    if (this.nonces.has(found.nonce)) refute("V04.record", "the nonce was used before", null, found.nonce);
    this.nonces.add(found.nonce);
    this.place = place;
    this.prev = itsDigest;
    this.at = found.at;
    this.follow(place, found, itsDigest, refute);
  }
  follow(place, found, itsDigest, refute) {
    const names = new Map();
    if (/^(?:action|run|escalation|request|compute|step)\./.test(found.kind)) {
      names.set("a", found.body.agent).set("r", found.body.run);
      const payee = found.body.terms?.payee ?? null;
      if (payee !== null) names.set("p", payee);
      if (/^run\.(?:started|ended)$/.test(found.kind) && has(found.body, "workflow")) names.set("w", found.body.workflow.name);
    } else names.set("g", "g");
    const streams = Object.entries(found.streams), letters = new Set(streams.map(([stream]) => stream[0]));
    const required = [...names].filter(([, name]) => name).map(([letter]) => letter);
    if (streams.length !== required.length || !required.every((letter) => letters.has(letter))) {
      refute("V06.stream", "the record does not stand in the streams of its kind", required, Object.keys(found.streams));
    }
    for (const [stream, [seq, prev]] of streams) {
      const [lastSeq, last, since] = this.streams.get(stream) ?? [-1, ZERO, -1];
      const leftOut = !this.whole && stream !== "g" && seq > lastSeq + 1;  // whose stream must go on is V18's to say
      if (!leftOut && (seq !== lastSeq + 1 || prev !== last) && !this.bridged(seq - lastSeq - 1, prev, since)) {
        if (seq !== lastSeq + 1) refute("V06.stream", `a gap or a repetition in ${stream}`, lastSeq + 1, seq);
        if (prev !== last) refute("V06.stream", `another previous record in ${stream}`, last, prev);
      }
      this.streams.set(stream, [seq, itsDigest, place]);
      const name = names.get(stream[0]);
      if (name && stream[0] === "p") this.named(stream, `p:${name}`, refute);
      else if (name && stream !== "g") this.owned(stream, name, refute);
    }
  }
  owned(stream, name, refute) {
    const key = stream[0] + name;
    if (!this.own.has(key)) this.own.set(key, streamOf(stream[0], name));
    if (stream !== this.own.get(key)) refute("V06.stream", `not the stream of ${name}`, this.own.get(key), stream);
  }
  bridged(missing, prev, since) {
    const at = this.unread.filter(([place]) => place > since).findIndex(([, itsDigest]) => itsDigest === prev);
    return at >= 0 && missing >= 1 && missing <= at + 1;
  }
  named(stream, name, refute) {
    if (!this.nameOf.has(stream)) this.nameOf.set(stream, name);
    if (!this.streamOf.has(name)) this.streamOf.set(name, stream);
    if (this.nameOf.get(stream) !== name) refute("V06.stream", `${stream} is of two names`, this.nameOf.get(stream), name);
    if (this.streamOf.get(name) !== stream) refute("V06.stream", `${name} has two streams`, this.streamOf.get(name), stream);
  }
}

const equal = (a, b) => render(a) === render(b);

// Bundles, people and their keys in force, and what people signed: V09 and V10 as far as signatures and bindings go.
class Authority {
  constructor(ledger, trust, members, head, tree) {
    Object.assign(this, {ledger, trust, head, tree, bundles: new Map(), bad: new Map(), ill: new Map(), named: new Set(),
      activated: null, activation: null, deployment: null, enrolled: new Map(), removed: new Map(), vouched: new Map(),
      mandates: new Map(), kills: new Set(), killIds: new Set(), escalations: new Map(), lane: null, logKey: null,
      ended: new Map(), waiting: null, promised: null});
    for (const [name, raw] of members) if (name.startsWith("policy/")) this.shelve("sha256:" + name.slice(7, -5), raw);
  }
  shelve(name, raw) {
    try {
      const document = parse(raw, 16 * MB);
      if (digest("bundle", raw) !== name) throw new Malformed("has another digest");
      const {compiled} = document;
      if (!isObject(compiled) || !Array.isArray(compiled.people) || !Array.isArray(compiled.tools)
          || !Array.isArray(compiled.agents)) throw new Malformed("has no people, agents or tools");
      const person = record({id: TEXT, name: TEXT, roles: listing(TEXT), keys: listing(KEY_TEXT, 16)});
      const tool = (value) => isObject(value) && [value.name, value.class].every((one) => typeof one === "string")
        && Array.isArray(value.args) && value.args.every(isObject) && Array.isArray(value.once_per);
      if (listing(person)(compiled.people) || !compiled.tools.every(tool)) {
        throw new Malformed("has people or tools of another form");
      }
      const people = new Set(compiled.people.map((one) => one.id));
      const nobody = [compiled.author, ...compiled.agents.map((one) => one.owner)].find((one) => !people.has(one));
      if (nobody !== undefined) this.ill.set(name, `the bundle has the author or owner ${nobody}, who is nobody`);
      this.bundles.set(name, {
        author: compiled.author, people: new Map(compiled.people.map((one) => [one.id, one])),
        tools: new Map(compiled.tools.map((one) => [one.name, one])),
        agents: new Map(compiled.agents.map((one) => [one.id, one])), zone: compiled.zone,
      });
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.bad.set(name, `the bundle ${error.message}`);
    }
  }
  get bundle() { return this.bundles.get(this.activated); }
  holds(bundle, person, key) {
    const known = bundle?.people.get(person);
    if (!known) return false;
    return this.enrolled.get(key)?.person === person || (known.keys.includes(key) && !this.removed.has(key));
  }
  // True when the signature holds and the auditor knows the key as this person's.
  async byPerson(step, code, seq, person, row, message) {
    const {ledger} = this;
    if (!await signedText(row.key, row.sig, message)) {
      ledger.refute(code, `the signature of ${person} does not verify`, seq);
      return false;
    }
    const known = this.trust?.people.get(person) ?? [], enrolled = this.enrolled.get(row.key);
    if (known.includes(row.key) || this.vouched.get(row.key)?.person === person) return true;
    if (enrolled?.person === person) {
      ledger.lack(`${step}.no_key`, `the key of ${person} was enrolled at seq ${enrolled.seq} by keys that are not known`, seq);
    } else if (!known.length) ledger.lack(`${step}.no_key`, `the trust file has no key of ${person}`, seq);
    else ledger.refute(code, `signed with a key that is not ${person}'s`, seq, known, row.key);
    return false;
  }
  sameDeployment(code, seq, document) {
    if (document.deployment !== this.deployment) {
      this.ledger.refute(code, "made for another deployment", seq, this.deployment, document.deployment);
    }
  }
  inForce(code, seq, person, key, role = null) {
    if (!this.bundle) return this.ledger.lack("V10.no_role", `no bundle in force says who ${person} is`, seq);
    if (!this.holds(this.bundle, person, key)) {
      this.ledger.refute(code, `signed with a key that is not enrolled for ${person}`, seq);
    } else if (role !== null && !this.bundle.people.get(person).roles.includes(role)) {
      this.ledger.refute(code, `${person} does not have the role ${role}`, seq);
    }
    return undefined;
  }
  async order(code, seq, name, document, person, body, role = null) {
    this.sameDeployment(code, seq, document);
    this.inForce(code, seq, person, body.key, role);
    return this.byPerson("V10", code, seq, person, body, signingBytes(name, document));
  }
  async fourEyes(code, seq, name, document, rows) {
    this.sameDeployment(code, seq, document);
    if (rows[0].person === rows[1].person) this.ledger.refute(code, `${rows[0].person} signed twice`, seq);
    for (const row of rows) {
      this.inForce(code, seq, row.person, row.key);
      await this.byPerson("V10", code, seq, row.person, row, signingBytes(name, document));
    }
  }
  async check(seq, found) {
    const {kind, body} = found, {ledger} = this, known = CHECKS[kind];
    if (known !== undefined) {
      ledger.ran(kind === "policy.activated" ? "V09" : "V10", 1);
      await known.call(this, seq, body, found);
    }
  }
  finish() {
    for (const name of [...this.bundles.keys(), ...this.bad.keys()].sort()) {
      if (!this.named.has(name)) this.ledger.refute("V09.bundle", "no activation names this bundle", null, null, name);
    }
    const {head, ledger} = this;
    if (head && this.lane !== null && this.deployment !== null) {
      const origin = `countermark/${this.deployment}/${this.lane}`;
      if (origin !== head.origin) ledger.refute("V03.origin", "the records end in another lane", null, head.origin, origin);
    }
    for (const [lane, [size, known]] of this.ended) {
      if (known === 0 || known > size) {
        const many = known === 0 ? "an unknown number of" : known - size;
        ledger.lack("V15.gap", `${many} records of lane ${lane} were lost before a restore`, size);
      }
    }
    for (const item of this.trust?.foreign ?? []) this.foreign(item);
  }
  foreign(item) {
    const ended = this.ended.get(item.origin.slice(item.origin.lastIndexOf("/") + 1));
    this.ledger.ran("V07", 1);
    if (ended === undefined) {
      this.ledger.lack("V07.no_trust", `a trusted head is of ${item.origin}, which this log does not follow`);
      return;
    }
    const [size, known, root] = ended, hex = hexOf(item.root);
    if (item.size <= size) {
      if (!this.tree) {
        if (!verifiedHead(this.head, this.trust)) {
          this.ledger.lack("V07.extract", `a head of ${item.origin} cannot be compared with chosen records`, null, item.size);
        }
      } else if (!same(this.tree.rootAt(item.size), item.root)) {
        this.ledger.refute("V07.rewritten", `a retained head of size ${item.size} of ${item.origin} disagrees`);
      }
    } else if (item.size > known) {
      this.ledger.refute("V07.undeclared", "a retained head is longer than what was declared lost", size, item.size, known);
    } else if (item.size === known && hex !== root) {
      this.ledger.refute("V07.undeclared", `another head of ${item.origin} of this size was declared`, size, hex, root);
    }
  }
  laneNumber(lane) { return Number(/([0-9]+)$/.exec(lane)?.[1] ?? -1); }
  precedes(lane) {
    return Boolean(this.head) && this.laneNumber(lane) < this.laneNumber(this.head.origin.split("/").at(-1));
  }
}

const CHECKS = {
  "gate.started"(seq, body, found) {
    this.deployment ??= body.deployment;
    if (this.logKey !== null && body.log_key !== this.logKey) {
      this.ledger.refute("V03.mismatch", "another log key than the lane's", seq, this.logKey, body.log_key);
    }
    this.logKey = body.log_key;
    this.lane ??= found.lane;
    if (body.recovered !== found.seq) {
      this.ledger.refute("V03.mismatch", "the gate found another log than this one", seq, seq, body.recovered);
    }
    if (!this.head || this.precedes(found.lane)) return;
    const origin = `countermark/${body.deployment}/${found.lane}`, keys = [...this.trust?.keysEver ?? []];
    if (keys.length && !keys.includes(body.log_key)) {
      this.ledger.refute("V03.mismatch", "another log key than the trusted ones", seq, keys, body.log_key);
    }
    if (origin !== this.head.origin) this.ledger.refute("V03.origin", "the record opens another log", seq, this.head.origin, origin);
  },
  async "policy.activated"(seq, body, found) {
    const {activation} = body, {activator} = activation, {ledger} = this;
    this.named.add(activation.bundle);
    if (this.bad.has(activation.bundle)) ledger.refute("V09.bundle", this.bad.get(activation.bundle), seq, null, activation.bundle);
    else if (!this.bundles.has(activation.bundle)) {
      ledger.refute("V09.bundle", "the pack has no bundle of this digest", seq, null, activation.bundle);
    } else if (this.ill.has(activation.bundle)) ledger.refute("V09.bundle", this.ill.get(activation.bundle), seq, null, activation.bundle);
    this.sameDeployment("V09.signature", seq, activation);
    const message = signingBytes("activation", activation);
    await this.byPerson("V09", "V09.signature", seq, activator, body, message);
    if (activation.previous !== this.activation) {
      ledger.refute("V09.chain", "not the activation before", seq, this.activation, activation.previous);
    }
    const bundle = this.bundles.get(activation.bundle), judge = this.activation === null ? bundle : this.bundle;
    for (const row of [{person: activator, key: body.key}, ...(body.second ? [body.second] : [])]) {
      if (judge && !this.holds(judge, row.person, row.key)) {
        ledger.refute("V09.signature", `signed with a key that is not enrolled for ${row.person}`, seq);
      }
    }
    if (body.second) await this.byPerson("V09", "V09.signature", seq, body.second.person, body.second, message);
    if (bundle && bundle.author !== activation.author) {
      ledger.refute("V09.bundle", "another author wrote it", seq, bundle.author, activation.author);
    }
    if (bundle) this.monitored(seq, body, found.at, bundle);
    this.activated = activation.bundle;
    this.activation = this.present;
    for (const [key, one] of this.enrolled) {
      if (bundle && !bundle.people.has(one.person)) { this.enrolled.delete(key); this.removed.set(key, seq); }
    }
  },
  async "mandate.granted"(seq, body) {
    const {mandate} = body, {ledger} = this, actual = digest("mandate", bytesOf(render(mandate)));
    if (actual !== body.digest) ledger.refute("V10.mandate", "the digest is not the mandate's", seq, actual, body.digest);
    if (this.mandates.has(body.digest)) ledger.refute("V10.mandate", "the mandate was granted before", seq);
    const parent = mandate.parent === null ? null : this.mandates.get(mandate.parent);
    if (parent === undefined) ledger.refute("V10.mandate", "the parent was never granted", seq, mandate.parent);
    if (this.bundle && !this.bundle.agents.has(mandate.agent)) {
      ledger.refute("V10.mandate", "granted to an agent that the policy does not know", seq, null, mandate.agent);
    }
    if (mandate.not_before >= mandate.not_after) ledger.refute("V10.mandate", "the validity is empty", seq);
    if (parent) this.narrower(seq, mandate, parent);
    if (parent?.agent_key && body.key === parent.agent_key) {
      this.sameDeployment("V10.mandate", seq, mandate);
      if (!await signedText(body.key, body.sig, signingBytes("mandate", mandate))) {
        ledger.refute("V10.mandate", "the signature of the parent's agent does not verify", seq);
      }
    } else await this.order("V10.mandate", seq, "mandate", mandate, mandate.principal, body, "principal");
    this.mandates.set(body.digest, mandate);
  },
  "mandate.accepted"(seq, body) { this.mandates.set(body.digest, body.mandate); },
  async "mandate.revoked"(seq, body) {
    if (!this.mandates.has(body.revocation.mandate)) {
      this.ledger.refute("V10.mandate", "revokes a mandate that was never granted", seq);
    }
    await this.order("V10.mandate", seq, "revocation", body.revocation, body.revocation.person, body);
  },
  "key.rotated"(seq, body) {
    const {deployment, lane, new: next} = body.rotation;
    this.logKey = this.rotated = keyOfLog(`countermark/${deployment}/${lane}`, next);
  },
  "kill.set"(seq, body) {
    if (this.killIds.has(body.kill)) this.ledger.refute("V10.clearance", "the kill's id was used before", seq, null, body.kill);
    this.kills.add(body.kill);
    this.killIds.add(body.kill);
  },
  async "kill.cleared"(seq, body) {
    if (!this.kills.delete(body.clearance.kill)) {
      this.ledger.refute("V10.clearance", "clears a kill that is not set", seq, null, body.clearance.kill);
    }
    await this.order("V10.clearance", seq, "clearance", body.clearance, body.clearance.person, body);
  },
  async "review.cleared"(seq, body) {
    const {review} = body;
    if (review.action !== body.id) this.ledger.refute("V10.review", "signed for another action", seq, body.id, review.action);
    await this.order("V10.review", seq, "review", review, review.person, body);
  },
  async "payee.changed"(seq, body, found) {
    if (found.at >= body.details.not_after) {
      this.ledger.refute("V10.payee", "ordered after its time was over", seq, body.details.not_after, found.at);
    }
    await this.order("V10.payee", seq, "payee", body.details, body.details.person, body, "payees");
  },
  async "action.resolved"(seq, body) {
    if (body.resolution.action !== body.id) this.ledger.refute("V10.resolution", "signed for another action", seq);
    await this.fourEyes("V10.resolution", seq, "resolution", body.resolution, body.signed);
  },
  async "obligation.reopened"(seq, body) {
    if (body.reopening.action !== body.id) this.ledger.refute("V10.reopening", "signed for another action", seq);
    await this.fourEyes("V10.reopening", seq, "reopening", body.reopening, body.signed);
  },
  async "obligation.imported"(seq, body) { await this.fourEyes("V10.import", seq, "import", body.import, body.signed); },
  async "key.enrolled"(seq, body, found) {
    const said = body.enrolment, {ledger} = this, wrong = (why) => ledger.refute("V10.enrolment", why, seq);
    let clean = true;
    const refuse = (why) => { clean = false; wrong(why); };
    if (said.deployment !== this.deployment) refuse("made for another deployment");
    if (!(found.at < said.not_after && said.not_after <= found.at + 7 * 86400e6)) refuse("recorded after its time, or lasts too long");
    if (this.removed.has(said.key)) refuse(`the key was removed at seq ${this.removed.get(said.key)}`);
    try {
      if (said.key.startsWith("webauthn:")) await parsePasskey(said.key); else parseKey(said.key);
      if (said.key.startsWith("webauthn:") !== (body.proof !== null)) refuse("a passkey proves that somebody holds it, and no other key does");
      else if (body.proof !== null && !await signedText(said.key, body.proof, signingBytes("enrolment-proof", said))) {
        refuse("the passkey did not sign this enrolment");
      }
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      refuse(`the key ${error.message}`);
    }
    if (this.bundle && !this.bundle.people.has(said.person)) refuse(`nobody is called ${said.person}`);
    const owner = this.enrolled.get(said.key)?.person
      ?? [...(this.bundle?.people ?? [])].find(([, one]) => one.keys.includes(said.key))?.[0];
    if (owner) refuse(`the key is ${owner}'s already`);
    let known = true;
    for (const row of body.signed) {
      this.inForce("V10.enrolment", seq, row.person, row.key);
      known = await this.byPerson("V10", "V10.enrolment", seq, row.person, row, signingBytes("enrolment", said)) && known;
    }
    const people = body.signed.map((row) => row.person), alone = people.length === 1 && people[0] === said.person;
    if (!alone && (new Set(people).size !== people.length || people.includes(said.person) || !people.length)) {
      refuse("not signed by the person, nor by others who may");
    }
    this.enrolled.set(said.key, {person: said.person, seq});
    if (known && clean && (alone || people.length === 2)) this.vouched.set(said.key, {person: said.person, seq, by: people});
  },
  async "key.removed"(seq, body) {
    const said = body.removal;
    await this.order("V10.enrolment", seq, "removal", said, said.by, body);
    if (this.bundle && !this.holds(this.bundle, said.person, said.key)) {
      this.ledger.refute("V10.enrolment", `${said.person} does not have this key`, seq, null, said.key);
    }
    this.enrolled.delete(said.key);
    this.removed.set(said.key, seq);
  },
  async "absence.set"(seq, body) {
    const said = body.absence;
    this.sameDeployment("V10.absence", seq, said);
    if (!(said.until > said.from && said.until - said.from <= 366 * 86400e6)) {
      this.ledger.refute("V10.absence", "lasts for no time, or too long", seq);
    }
    if (said.person === said.stands_in) this.ledger.refute("V10.absence", "the person stands in for themselves", seq);
    for (const row of body.signed) {
      this.inForce("V10.absence", seq, row.person, row.key);
      await this.byPerson("V10", "V10.absence", seq, row.person, row, signingBytes("absence", said));
    }
  },
  "escalation.raised"(seq, body) {
    this.escalations.set(body.escalation, {body, rung: new Map(Object.keys(body.ladders).map((name) => [name, 1])),
                                           state: "pending", people: new Set()});
  },
  "escalation.climbed"(seq, body) {
    const asked = this.escalations.get(body.escalation);
    if (asked?.rung.has(body.ladder)) { asked.rung.set(body.ladder, body.rung); asked.people.clear(); }
  },
  "escalation.expired"(seq, body) {
    const asked = this.escalations.get(body.escalation);
    if (asked) asked.state = "expired";
  },
  async "escalation.answered"(seq, body, found) {
    const said = body.approval, {ledger} = this;
    this.sameDeployment("V10.approval", seq, said);
    await this.byPerson("V10", "V10.approval", seq, said.person, body, signingBytes("approval", said));
    const asked = this.escalations.get(body.escalation);
    if (asked === undefined) {
      ledger.refute("V10.approval", "answers an escalation that was never raised", seq, null, body.escalation);
      return;
    }
    const {body: raised} = asked;
    const wanted = {...Object.fromEntries(["escalation", "action", "request", "bundle", "mandate", "terms", "not_after"]
      .map((name) => [name, raised[name]])), ids: has(raised.ladders, said.ladder) ? raised.ladders[said.ladder] : null,
      rung: asked.rung.get(said.ladder) ?? null};
    if (raised.reference || has(said, "reference")) wanted.reference = raised.reference?.digest ?? null;
    for (const [name, value] of Object.entries(wanted)) {
      if (!equal(said[name] ?? null, value)) ledger.refute("V10.approval", `signed another ${name}`, seq, value, said[name]);
    }
    if (found.at >= raised.not_after) ledger.refute("V10.approval", "answered after the deadline", seq, raised.not_after, found.at);
    if (asked.people.has(said.person)) ledger.refute("V10.approval", `${said.person} answered before`, seq);
    if (asked.state !== "pending") ledger.refute("V10.approval", `the escalation was already ${asked.state}`, seq);
    if (this.bundle && !this.holds(this.bundle, said.person, body.key)) {
      ledger.refute("V10.approval", `signed with a key that is not enrolled for ${said.person}`, seq);
    }
    if (this.bundle && this.bundle.author === said.person) {
      ledger.refute("V10.separation", `${said.person} wrote the policy`, seq);
    }
    if (this.bundle && this.bundle.agents.get(body.agent)?.owner === said.person) {
      ledger.refute("V10.separation", `${said.person} owns an agent behind what was asked`, seq);
    }
    asked.people.add(said.person);
    asked.state = said.verdict === "refuse" ? "refused" : body.state;
  },
  async "request.signed"(seq, body) {
    const lines = body.covered.map(([name, value]) => `"${name}": ${value}`);
    const message = bytesOf([...lines, `"@signature-params": ${body.params}`].join("\n"));
    if (!await signedText(body.key, body.sig, message)) {
      this.ledger.refute("V10.request", `the signature of the agent ${body.agent} does not verify`, seq);
    }
    if (!this.bundle?.agents.get(body.agent)?.keys?.includes(body.key)) {
      this.ledger.refute("V10.request", `signed with a key that is not enrolled for ${body.agent}`, seq);
    }
    const wanted = new Map(body.covered).get("content-digest");
    if (body.body !== null && wanted !== `sha-256=:${encode64(sha256(bytesOf(body.body)))}:`) {
      this.ledger.refute("V10.request", "the body is not the one that was signed", seq);
    }
  },
  "lane.succeeded"(seq, body, found) {
    const root = this.tree ? hexOf(this.tree.rootAt(seq)) : body.predecessor.root;  // of an extract there is no tree
    const wanted = {lane: this.lane, size: seq, root, log_key: this.logKey};
    const differs = (why, expected, actual) => this.ledger.refute("V06.lane", why, seq, expected, actual);
    for (const [name, value] of Object.entries(wanted)) {
      if (body.predecessor[name] !== value) differs(`another ${name} than that of the records before`, value, body.predecessor[name]);
    }
    for (const given of [body.lane, found.lane]) {
      if (this.lane === null || this.laneNumber(given) !== this.laneNumber(this.lane) + 1) differs("not the lane after the one before", this.lane, given);
    }
    const origin = `countermark/${this.deployment}/${found.lane}`;
    if (body.log_key.split("+")[0] !== origin) differs("the successor's key is not named like its log", origin, body.log_key);
    const keys = [...this.trust?.keysEver ?? []];
    if (this.head?.origin === origin && keys.length && !keys.includes(body.log_key)) {
      this.ledger.refute("V03.mismatch", "another log key than the trusted ones", seq, keys, body.log_key);
    }
    const short = body.known !== null && body.known.size < seq;
    if (short) differs("a head shorter than what was restored says nothing of its end", seq, body.known.size);
    else if (this.tree && body.known?.size === seq && body.known.root !== hexOf(this.tree.rootAt(seq))) {
      differs("the known head of this size has another root", null, body.known.root);
    }
    if (this.lane !== null) this.ended.set(this.lane, body.known === null || short ? [seq, 0, ""] : [seq, body.known.size, body.known.root]);
    this.lane = found.lane;
    this.logKey = body.log_key;
    this.waiting = {digest: this.present, imported: 0, lane: body.lane};
    this.promised = {found: body.activity.found, digest: body.activity.digest, sum: ZERO, seq};
  },
  "lane.imported"(seq, body) {
    if (this.promised === null) {
      this.ledger.refute("V11.succession", "a movement outside the list of a restore", seq);
      return;
    }
    this.promised.sum = digest("activity", bytesOf(render([this.promised.sum, body])));
    this.waiting.imported++;
  },
  async "lane.accepted"(seq, body) {
    const said = body.acceptance;
    await this.order("V10.succession", seq, "acceptance", said, said.person, body);
    if (this.waiting === null) {
      this.ledger.refute("V10.succession", "no restored lane waits to be accepted", seq);
      return;
    }
    const wanted = {lane: this.waiting.lane, succession: this.waiting.digest, imported: this.waiting.imported, bundle: this.activated};
    for (const [name, value] of Object.entries(wanted)) {
      if (said[name] !== value) this.ledger.refute("V10.succession", `accepts another ${name}`, seq, value, said[name]);
    }
  },
};

// To monitor a tool takes two people and lasts a fortnight at most.
Authority.prototype.monitored = function monitored(seq, body, at, bundle) {
  const until = [...bundle.tools.values()].filter((tool) => has(tool, "monitor")).map((tool) => tool.monitor);
  if (until.some((end) => !(at < end && end <= at + 14 * 86400e6))) {
    this.ledger.refute("V09.monitor", "a tool is monitored for no time, or too long", seq);
  }
  if (Boolean(until.length) !== Boolean(body.second)) {
    this.ledger.refute("V09.monitor", "two people sign exactly what monitors a tool", seq);
  }
  if (until.length && body.second?.person === body.activation.activator) {
    this.ledger.refute("V09.monitor", `${body.second.person} signed twice`, seq);
  }
};

// A child may only narrow what its parent grants.
Authority.prototype.narrower = function narrower(seq, child, parent) {
  const wider = (what, expected, actual) => this.ledger.refute("V10.mandate", `wider than its parent in ${what}`, seq, expected, actual);
  for (const name of ["tools", "payees", "named"]) {
    const all = name !== "named" && parent[name].includes("*"), extra = child[name].filter((one) => !parent[name].includes(one));
    if (!all && extra.length) wider(name, parent[name].slice(0, 20), extra.slice(0, 20));
  }
  if (child.not_before < parent.not_before) wider("not_before", parent.not_before, child.not_before);
  if (child.not_after > parent.not_after) wider("not_after", parent.not_after, child.not_after);
  if (!["", child.purpose].includes(parent.purpose) && !child.purpose.startsWith(parent.purpose + ": ")) {
    wider("purpose", parent.purpose, child.purpose);
  }
  const currencies = parent.limits.map((limit) => limit.currency).filter((one) => one !== "*");
  for (const {currency, amount, over_us: over} of child.limits) {
    if (currencies.length && currency !== "*" && !currencies.includes(currency)) wider("currencies", currencies, currency);
    const least = Math.min(...parent.limits.filter((one) => one.currency === currency && one.over_us === over).map((one) => one.amount));
    if (amount > least) wider(`limits in ${currency}`, least, amount);
  }
};

// The movements that a restore counted stand directly after it.
Authority.prototype.listEnded = function listEnded(kind) {
  if (this.promised === null || kind === "lane.imported") return;
  const {found, digest: wanted, sum, seq} = this.promised;
  this.promised = null;
  if (found !== this.waiting.imported || wanted !== sum) {
    this.ledger.refute("V11.succession", "not the movements that the restore counted", seq, [found, wanted], [this.waiting.imported, sum]);
  }
};

const OF_WORKFLOWS = /^(?:compute\.|step\.|run\.(?:cancelled|migrated)$)/;

// V11: effects have their intents, outcomes their order, runs and questions their place.
class Life {
  constructor(ledger, authority, whole) {
    Object.assign(this, {ledger, authority, whole, actions: new Map(), runs: new Map(), flagged: new Map(), held: new Map(),
                         parked: null, before: ""});
  }
  check(seq, found, itsDigest) {
    const {kind, body} = found, {ledger} = this, refute = (code, why, expected, actual) => ledger.refute(code, why, seq, expected, actual);
    if (this.parked !== null && (kind !== "escalation.raised" || body.decided !== seq - 1)) {
      ledger.refute("V11.escalation", "parked, and people were not asked directly after it", this.parked);
    }
    this.parked = null;
    const ofWorkflows = OF_WORKFLOWS.test(kind) || (kind === "run.ended" && has(body, "workflow")) || body.because === "cancelled";
    if (ofWorkflows && (this.runs.has(body.run) ? !this.runs.get(body.run).workflow : this.whole)) {
      refute("V21.step", "a record of a workflow in a run of none", null, kind);
    }
    if (kind === "run.started") {
      if (this.runs.has(body.run)) refute("V11.run", "the run was started before");
      const {bundle} = this.authority;
      if (bundle && !bundle.agents.has(body.agent)) refute("V11.run", "an agent that the policy does not know", null, body.agent);
      this.runs.set(body.run, {agent: body.agent, mandate: body.mandate, ended: false, workflow: has(body, "workflow")});
    } else if (kind === "run.ended") {
      const run = this.runs.get(body.run);
      if (!run || run.ended || run.agent !== body.agent) refute("V11.run", "ends a run that is not this agent's, or not open");
      else run.ended = true;
    } else if (kind === "obligation.imported") this.take(body.obligation, seq, true, refute);
    else if (kind === "lane.imported" && body.obligation !== null) this.held.set(body.obligation, {seq, kept: true});
    else if (kind === "escalation.answered" && body.approval.verdict === "refuse") {
      const obligation = this.actions.get(body.id)?.body.obligation ?? null;
      if (obligation !== null) this.held.set(obligation, {seq, kept: true, refusal: itsDigest});
    } else if (kind === "obligation.reopened") {
      const obligation = this.actions.get(body.id)?.body.obligation ?? null, held = this.held.get(obligation);
      if (!this.whole && !this.actions.has(body.id)) return;  // an action that an extract does not have
      if (held?.refusal === undefined || held.seq !== body.refused) refute("V11.obligation", "reopens what no refusal holds", null, body.refused);
      else {
        if (held.refusal !== body.reopening.refusal_digest) refute("V10.reopening", "signed for another refusal");
        this.held.delete(obligation);
      }
    } else if (kind === "action.decided") this.decided(seq, body, itsDigest, refute);
    else if (kind === "action.settled") this.settled(body, refute);
    else if (kind === "escalation.raised") this.raised(seq, body, refute);
    else if (kind === "review.cleared") {
      const flag = this.flagged.get(body.id);
      if (!flag && !this.whole && !this.actions.has(body.id)) return;  // an action that an extract does not have
      if (!flag) refute("V11.review", "clears what is not flagged, or was cleared before", null, body.id);
      else if (flag.seq !== body.decided || flag.digest !== body.review.decided_digest) refute("V10.review", "signed for another decision");
      this.flagged.delete(body.id);
    } else if (kind === "log.read" && !(body.from < body.to && body.to <= seq)) {
      refute("V11.read", "these records were not there to be read", [0, seq], [body.from, body.to]);
    }
    const {bundle} = this.authority;
    if (kind === "log.read" && bundle && body.reader.startsWith("person:") && !bundle.people.has(body.reader.slice(7))) {
      refute("V11.read", "read by somebody whom the policy does not know", null, body.reader);
    }
    if (kind === "action.resolved") {
      const intent = this.actions.get(body.id);
      if (!intent || !["open", "unknown"].includes(intent.state)) refute("V11.outcome", "resolves what has no intent, or a final outcome");
      else if (intent.digest !== body.resolution.intent_digest) refute("V10.resolution", "signed for another intent");
    }
    if (["run", "action", "escalation", "review", "lane", "log"].includes(kind.split(".")[0])) ledger.ran("V11", 1);
    this.before = kind;
  }
  decided(seq, body, itsDigest, refute) {
    const known = this.actions.get(body.id), run = this.runs.get(body.run), asked = this.authority.escalations.get(body.escalation);
    if (!run || run.agent !== body.agent || (run.ended && body.disposition !== "deny")) {
      refute("V11.run", "the run is not open, or not this agent's", null, body.run);
    }
    if (known && known.action !== body.action) refute("V11.double", "the same call with another action", known.action, body.action);
    else if (body.escalation === null && known) refute(known.state === "escalate" && body.disposition !== "deny"
      ? "V11.escalation" : "V11.double", `decided before, at seq ${known.seq}`);
    if (body.escalation !== null) {
      if (!asked || asked.body.id !== body.id) refute("V11.escalation", "names an escalation that is not this action's", null, body.escalation);
      else if (asked.state === "used") refute("V11.double", "decided after this approval before");
      else if (asked.state !== "approved") refute("V11.escalation", "the escalation was not approved", "approved", asked.state);
      else if (known && !["escalate", "deny"].includes(known.state)) refute("V11.double", `the action already is ${known.state}`);
      if (asked) asked.state = "used";
    }
    const intent = ["allow", "flag"].includes(body.disposition);
    if (body.disposition === "flag") this.flagged.set(body.id, {seq, digest: itsDigest});
    if (body.disposition === "escalate") this.parked = seq;
    this.last = {seq, digest: itsDigest, body};
    this.actions.set(body.id, {seq, digest: itsDigest, action: body.action, state: intent ? "open" : body.disposition, body});
    if (intent) this.take(body.obligation, seq, false, refute);
    if (body.bundle !== this.authority.activated) this.ledger.refute("V14.decision", "decided under a bundle that is not in force", seq, this.authority.activated, body.bundle);
  }
  // A business key is taken by one intent, import or refusal; only an intent that failed gives it back.
  take(obligation, seq, kept, refute) {
    if (obligation === null) return;
    const held = this.held.get(obligation);
    if (held !== undefined) refute("V11.obligation", "the business key was taken", null, `seq:${held.seq}`);
    else this.held.set(obligation, {seq, kept});
  }
  raised(seq, body, refute) {
    const {last} = this;
    if (body.decided !== seq - 1 || !last || last.seq !== seq - 1 || last.body.disposition !== "escalate") {
      refute("V11.escalation", "does not follow the decision that it asks about");
      return;
    }
    const wanted = {decided_digest: last.digest, escalation: "esc_" + last.digest.slice(7, 39), id: last.body.id,
      agent: last.body.agent, run: last.body.run, action: last.body.action, request: last.body.request,
      terms: last.body.terms, bundle: last.body.bundle, mandate: last.body.mandates[0] ?? null, reference: last.body.reference ?? null};
    for (const [name, value] of Object.entries(wanted)) {
      if (!equal(body[name] ?? null, value)) refute("V11.escalation", `another ${name} than the decision's`, value, body[name] ?? null);
    }
  }
  settled(body, refute) {
    const intent = this.actions.get(body.id), {settled} = body;
    if ((body.via === "people") !== (this.before === "action.resolved")) refute("V11.outcome", "told by people exactly after an action.resolved", null, body.via);
    if (!intent || !["open", "unknown"].includes(intent.state)) {
      if (["confirmed", "failed"].includes(intent?.state)) refute("V11.outcome", `an outcome after ${intent.state}`, null, body.outcome);
      else refute("V11.effect_without_intent", "an outcome of something that was never allowed");
      return;
    }
    if (body.intent !== intent.seq || body.intent_digest !== intent.digest) {
      refute("V11.effect_without_intent", "names another record as its intent", intent.seq, body.intent);
    }
    const {terms, tier} = intent.body;
    if (intent.state === "unknown" && body.outcome === "unknown") refute("V11.outcome", "unknown twice");
    if (!equal(body.terms, terms)) refute("V11.outcome", "other terms than the intent's", terms, body.terms);
    if (body.tier !== tier) refute("V11.outcome", "another tier than the intent's", tier, body.tier);
    for (const name of ["agent", "run", "tool"]) {
      if (body[name] !== intent.body[name]) refute("V11.outcome", `another ${name} than the intent's`, intent.body[name], body[name]);
    }
    if (settled !== null && settled.currency !== terms.currency) refute("V11.outcome", "another currency", terms.currency, settled.currency);
    if (settled !== null && body.outcome !== "confirmed") refute("V11.outcome", `money moved by an outcome ${body.outcome}`);
    if ((settled?.amount ?? terms.amount) !== terms.amount && body.code !== "booked_differently") {
      refute("V11.outcome", "another amount was booked under an ordinary code", "booked_differently", settled?.amount ?? null);
    }
    if (body.outcome === "confirmed" && body.via === "execute" && body.attempts === 0) refute("V11.outcome", "executed without an attempt");
    intent.state = body.outcome;
    const held = this.held.get(intent.body.obligation);
    if (body.outcome === "failed" && tier !== "observing" && held?.seq === intent.seq && !held.kept) this.held.delete(intent.body.obligation);
  }
  finish() {
    const open = [...this.actions.values()].filter((action) => action.state === "open").map((action) => action.seq);
    if (open.length) this.ledger.lack("V11.open", `${open.length} intents have no outcome`, null, [], open.slice(0, 20));
    if (this.parked !== null) this.ledger.refute("V11.escalation", "parked, and nobody was asked", this.parked);
  }
}

// A text of base units in the units that limits count, rounded up.
function counted(item, value) {
  if (typeof value !== "string" || !/^[1-9][0-9]{0,77}$/.test(value) || BigInt(value) >> 256n) return null;
  const unit = BigInt(item.unit), units = (BigInt(value) + unit - 1n) / unit;
  return units <= BigInt(INTEGER_MAX) ? Number(units) : null;
}

// V12: names that follow from what they name, and what was disclosed.
const DISCLOSED_SHAPE = record({
  v: constant(1),
  fields: listing(either(record({seq: integer(0), alias: text(ALIAS), salt: HEX32, value: either(TEXT, integer(), boolean)}),
    record({seq: integer(0), alias: text("\\$(?:inputs|output|message|outputs)"), salt: HEX32, value: VALUES})), 200000),
  requests: listing(record({seq: integer(0), salt: HEX32}), 200000),
});
class Identity {
  constructor(ledger, authority, raw) {
    Object.assign(this, {ledger, authority, opened: new Map(), salts: new Set(), sealed: 0, disclosed: 0, openedRequests: 0, gone: 0, subject: "", shown: new Set(),
                         withheldOf: new Map()});
    try {
      const document = parse(raw, 16 * MB, 2000000), reason = DISCLOSED_SHAPE(document);
      if (reason) throw new Malformed(`does not have the shape of disclosures${reason}`);
      let last = null;
      for (const item of document.fields) {
        if (last && (item.seq < last.seq || (item.seq === last.seq && item.alias <= last.alias))) throw new Malformed("is not sorted, or opens something twice");
        this.opened.set(`${item.seq} ${item.alias}`, item);
        last = item;
      }
      for (const {seq} of document.requests) {
        if ([...this.salts].at(-1) >= seq) throw new Malformed("is not sorted, or opens something twice");
        this.salts.add(seq);
      }
      this.disclosed = document.fields.length;
      this.openedRequests = document.requests.length;
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      ledger.refute("V12.disclosure", `${DISCLOSURES} ${error.message}`);
    }
  }
  check(seq, {kind, body}) {
    if (kind === "data.erased") this.erased(seq, body.erasure);
    if (OF_A_RUN.has(kind) && has(body, "subject")) this.ofRun(seq, body);
    if (kind !== "action.decided") return;
    this.ledger.ran("V12", 1);
    this.subject = body.terms.payee ?? `agent:${body.agent}`;
    const made = (name, value) => digest(name, bytesOf(render(value)));
    const {agent, run, call_id, tool, args} = body;
    const key = made("provider-key", [this.authority.deployment, agent, run, call_id, body.action]);
    for (const [name, code, expected] of [
      ["id", "V12.action", "act_" + made("action-id", [agent, run, call_id]).slice(7, 39)],
      ["action", "V12.action", made("action", {run, call_id, tool, args})], ["key", "V12.key", "cm_" + key.slice(7, 55)],
    ]) if (body[name] !== expected) this.ledger.refute(code, `another ${name} than the action has`, seq, expected, body[name]);
    const clear = new Map();
    for (const [alias, value] of Object.entries(args)) {
      if (typeof value !== "object") clear.set(alias, value);
      else { this.sealed++; if (this.fits(seq, alias, value.$sd)) clear.set(alias, this.opened.get(`${seq} ${alias}`).value); }
    }
    if (body.claimed.reason !== null) { this.sealed++; this.fits(seq, "$reason", body.claimed.reason.$sd); }
    if (body.salt === null) this.salts.delete(seq);
    this.declared(seq, body, clear);
  }
  // The one value of a record of a sealed run.
  ofRun(seq, body) {
    this.ledger.ran("V12", 1);
    this.subject = body.subject;
    this.sealed++;
    const holder = has(body, "workflow") ? body.workflow : body;
    const member = has(holder, "inputs") ? "inputs" : !has(holder, "output") ? "outputs" : holder.status === "ok" ? "output" : "message";
    const alias = `$${member}`, misfit = member === "message" ? MESSAGE : VALUES;
    if (this.fits(seq, alias, holder[member].$sd) && misfit(this.opened.get(`${seq} ${alias}`).value)) {
      this.ledger.refute("V12.disclosure", `the disclosed ${alias} is no such value`, seq);
    }
  }
  // Nothing that is gone can be disclosed: whoever has it kept it.
  erased(seq, {subject, values}) {
    this.gone += values;
    if (this.shown.delete(subject)) this.ledger.refute("V19.disclosure", `the pack discloses values of ${subject} that were erased`, seq);
    this.withheldOf.delete(subject);
  }
  fits(seq, alias, sealed) {
    const item = this.opened.get(`${seq} ${alias}`);
    if (item === undefined) return false;
    this.shown.add(this.subject);
    this.opened.get(`${seq} ${alias}`).seen = true;
    const actual = digest("field", bytesOf(render([item.salt, alias, item.value])));
    if (actual !== sealed) this.ledger.refute("V12.disclosure", `the disclosed ${alias} is not the sealed one`, seq, sealed, actual);
    return actual === sealed;
  }
  declared(seq, body, clear) {
    const asked = this.authority.escalations.get(body.escalation)?.body.bundle ?? this.authority.activated;
    const tool = this.authority.bundles.get(asked)?.tools.get(body.tool);
    if (!tool) return;
    const declared = new Map(tool.args.map((item) => [item.alias, item]));
    for (const [alias, item] of declared) {
      if (has(body.args, alias) && (typeof body.args[alias] === "object") !== item.sensitive) {
        this.ledger.refute("V12.action", `${alias} is sealed, or clear, against its declaration`, seq);
      } else if (item.required && !has(body.args, alias)) this.ledger.refute("V12.action", `the required argument ${alias} is missing`, seq);
      const decides = ["amount", "currency", "payee"].includes(item.class) || tool.once_per.includes(alias);
      if (has(body.args, alias) && !clear.has(alias) && decides) {
        this.withheldOf.set(this.subject, (this.withheldOf.get(this.subject) ?? 0) + 1);
      }
      if (["amount", "currency"].includes(item.class) && clear.has(alias)) {
        const said = clear.get(alias), number = has(item, "unit") ? counted(item, said) : typeof said === "string" && /^[0-9]{1,18}$/.test(said) ? Number(said) : said;
        const expected = item.class === "amount" ? number : said;
        if (body.terms[item.class] !== expected) this.ledger.refute("V12.terms", `another ${item.class} than the arguments say`, seq, expected, body.terms[item.class]);
      }
    }
    for (const alias of Object.keys(body.args)) if (!declared.has(alias)) this.ledger.refute("V12.action", `${alias} is no argument of the tool`, seq);
  }
  finish() {
    const withheld = [...this.withheldOf.values()].reduce((sum, one) => sum + one, 0);
    if (withheld) {
      this.ledger.lack("V12.withheld", `${withheld} sealed values that decide (payee, amount or business key) are not disclosed`, null, 0, withheld);
    }
    for (const item of this.opened.values()) {
      if (!item.seen) this.ledger.refute("V12.disclosure", `opens ${item.alias}, which is no sealed value of this record`, item.seq);
    }
    for (const seq of this.salts) this.ledger.refute("V12.disclosure", "opens the salt of a request that is not sealed", seq);
  }
}

// ---------------------------------------------------------------- part 4: extracts, epochs, witnessed heads

// The root over chosen leaves, [place, hash] each, and the hashes of one walk over the tree (docs/spec/pack.md).
function rootOfChosen(leaves, size, proof) {
  if (leaves.some(([place], at) => at && leaves[at - 1][0] >= place)) throw new Malformed("has leaves that are not in ascending order");
  if (!size || (leaves.length && leaves.at(-1)[0] >= size)) throw new Malformed("has a leaf outside the tree");
  let next = 0, taken = 0;
  const walk = (low, high) => {
    if (next === leaves.length || leaves[next][0] >= high) {
      if (taken === proof.length) throw new Malformed("has fewer hashes than the walk takes");
      return proof[taken++];
    }
    if (high - low === 1) return leaves[next++][1];
    let half = 1;
    while (2 * half < high - low) half *= 2;
    const left = walk(low, low + half);
    return node(left, walk(low + half, high));
  };
  const root = walk(0, size);
  if (taken !== proof.length) throw new Malformed("has more hashes than the walk takes");
  return root;
}

const fromHex = (written) => Uint8Array.from(written.match(/../g) ?? [], (pair) => parseInt(pair, 16));

// One stream of RFC 1951 with nothing after it. What would be longer is not inflated to its end.
// Some programs pass over what follows the end; then one byte less must not be a whole stream either.
async function inflated(raw, bytesMost) {
  const found = await inflatedLax(raw, bytesMost);
  lenient ??= await inflatedLax(Uint8Array.of(3, 0, 0), 1) !== null;
  return found !== null && lenient && await inflatedLax(raw.subarray(0, -1), bytesMost) !== null ? null : found;
}
let lenient = null;

async function inflatedLax(raw, bytesMost) {
  const reader = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate-raw")).getReader(), parts = [];
  let size = 0;
  try {
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return joined(...parts);
      size += value.length;
      parts.push(value);
      if (size > bytesMost) {
        await reader.cancel();
        return null;
      }
    }
  } catch (error) {
    return null;  // not deflated, cut off, or with bytes after its end
  }
}

const INDEX_SHAPE = record({v: constant(1), ranges: listing(fixed(integer(0), integer(1)), 400000)});
class Extract {
  constructor(ledger, members, scope) {
    Object.assign(this, {ledger, members, scope, leaves: [], rows: [], ranges: [], bundles: []});
    if (!members.has(INDEX) || !members.has(MULTIPROOF)) {
      ledger.refute("V05.index", "an extract has an index of its records and a proof of their places");
      return;
    }
    try {
      this.ranges = this.index(members.get(INDEX));
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      ledger.refute("V05.index", `${INDEX} ${error.message}`);
    }
    if ([...members.keys()].some((name) => name.startsWith("log/tile/"))) ledger.refute("V05.index", "an extract has no tiles");
  }
  index(raw) {
    const document = parse(raw, 16 * MB, 1200000), reason = INDEX_SHAPE(document);
    if (reason) throw new Malformed(`does not have the shape of an index${reason}`);
    let end = -1;
    for (const [low, high] of document.ranges) {
      if (low <= end || high <= low) throw new Malformed("has ranges that do not ascend, are empty or touch");
      end = high;
    }
    if (document.ranges.reduce((sum, [low, high]) => sum + high - low, 0) > 256 * 65534) throw new Malformed("names more records than a pack can hold");
    return document.ranges;
  }
  async inflate() {
    const count = this.ranges.reduce((sum, [low, high]) => sum + high - low, 0), {ledger, members} = this;
    const names = [...entryNames(count)].map(([name, width]) => ["records/" + name.slice("log/tile/entries/".length), width]);
    const wanted = new Set([INDEX, ...names.map(([name]) => name)]);
    const over = [...members.keys()].find((name) => name.startsWith("records/") && !wanted.has(name));
    if (over) ledger.refute("V05.size", "more records than the index has", null, count, over);
    let total = 0;
    for (const [name, width] of names) {
      if (!members.has(name)) { ledger.refute("V05.size", `${name} is missing`); return; }
      const data = await inflated(members.get(name), ENTRIES_BYTES_MAX);
      if (data === null) { ledger.refute("V05.size", `${name} is not deflated, or is too long`); return; }
      if ((total += data.length) > INFLATED_BYTES_MAX) {
        ledger.lack("V01.browser", `more than ${INFLATED_BYTES_MAX} bytes of records: use countermark-verify`);
        return;
      }
      this.bundles.push([name, data, width]);
    }
  }
  *entries() {
    const places = (function* all(ranges) { for (const [low, high] of ranges) for (let at = low; at < high; at++) yield at; })(this.ranges);
    for (const [name, data, width] of this.bundles) {
      let at = 0;
      for (let offset = 0; offset < width; offset++) {
        const end = at + 2 + (data[at] << 8 | data[at + 1]);
        if (at + 2 > data.length || end > data.length) { this.ledger.refute("V05.size", `${name} ends inside an entry`); return; }
        yield [places.next().value, data.subarray(at + 2, end)];
        at = end;
      }
      if (at !== data.length) { this.ledger.refute("V05.size", `${name} has bytes after its last entry`); return; }
    }
  }
  note(seq, {at, streams, kind, body}, itsDigest) {
    this.rows.push({seq, at, streams, digest: itsDigest, kind, action: has(streams, "g") ? "" : body.id ?? "", run: body.run || ""});
  }
  tree(head) {
    this.ledger.ran("V05", this.leaves.length);
    if (head === null || !this.members.has(MULTIPROOF)) return;
    try {
      const raw = this.members.get(MULTIPROOF), proof = [];
      if (raw.length % 32) throw new Malformed("is not a row of hashes");
      for (let at = 0; at < raw.length; at += 32) proof.push(raw.subarray(at, at + 32));
      const root = rootOfChosen(this.leaves, head.size, proof);
      if (!same(root, head.root)) this.ledger.refute("V05.root", "the records do not stand in the head's tree", null, hexOf(head.root), hexOf(root));
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.ledger.refute("V05.proof", `${MULTIPROOF} ${error.message}`);
    }
  }
  trusted(head, trust, cosigned, claims) {
    const {ledger} = this;
    if (!trust || head === null || !(trust.heads.length || cosigned)) {
      ledger.lack("V07.no_trust", "no retained head and no witness quorum: a rewrite of this log would not show");
      return;
    }
    ledger.ran("V07", trust.heads.length + trust.leaves.length);
    const roots = new Map(claims.map((claim) => [claim.size, claim.root]));
    for (const item of trust.heads) {
      const wanted = hexOf(item.root), known = item.size === head.size ? hexOf(head.root) : roots.get(item.size) ?? wanted;
      if (known !== wanted) ledger.refute("V07.rewritten", `the log is not the one of the head of size ${item.size} (${item.source})`, null, wanted, known);
    }
    for (const [seq, leaf] of this.leaves) {
      const expected = trust.leaves[seq - trust.leafFrom];
      if (expected !== undefined && expected !== hexOf(leaf)) ledger.refute("V07.rewritten", `the record at seq ${seq} is not the one retained`, seq, expected, hexOf(leaf));
    }
    const newest = trust.heads.reduce((most, item) => Math.max(most, item.size), 0);
    if (newest > head.size) ledger.lack("V07.truncated", "shorter than a head that the auditor retained", null, newest, head.size);
    if (!cosigned && trust.heads.every((item) => item.size !== head.size)) {
      ledger.lack("V07.extract", "no trusted head has exactly this size, and only that one can be compared", null,
        trust.heads.slice(0, 20).map((item) => item.size), head.size);
    }
  }
}

function touch(touched, streams, itsDigest) {
  for (const [name, [place]] of Object.entries(streams)) {
    const row = touched.get(name);
    if (row === undefined) touched.set(name, [place, place, itsDigest]); else { row[1] = place; row[2] = itsDigest; }
  }
}

const byCode = ([a], [b]) => (a < b ? -1 : a > b ? 1 : 0);

// V18: closed epochs. Of a whole pack the rows since the last one are kept, and each is made again when it is claimed.
class Epochs {
  constructor(ledger, tree) {
    ledger.ran("V18");
    Object.assign(this, {ledger, tree, claims: [], rows: [], ended: null});
  }
  check(seq, found, itsDigest) {
    if (this.tree) this.rows.push([seq, found.at, found.streams, itsDigest]);
    if (this.ended !== null && this.tree) this.ended = null;
    if (found.kind !== "epoch.closed") return;
    const {body} = found, last = this.claims.at(-1), size = last?.size ?? 0, until = last?.until ?? 0;
    this.ledger.ran("V18", 1);
    if (body.epoch !== this.claims.length || body.from !== size) {
      this.ledger.refute("V18.chain", "not the epoch after the one before", seq, [this.claims.length, size], [body.epoch, body.from]);
    } else if (!(size < body.size && body.size <= seq) || body.until <= until) {
      this.ledger.refute("V18.chain", "an epoch that is empty, or reaches further than the log", seq, [size, until], [body.size, body.until]);
    } else {
      this.claims.push({...body, seq});
      if (this.tree) this.again(this.claims.at(-1));
    }
  }
  again(claim) {
    const touched = new Map();
    for (const [seq, at, streams, itsDigest] of this.rows) {
      if (seq >= claim.size) {
        if (at < claim.until) this.ledger.refute("V18.until", "outside an epoch that ends later", seq, claim.until, at);
        break;  // times do not fall, which V06 sees to
      }
      if (at >= claim.until) this.ledger.refute("V18.until", "within an epoch that ends before it", seq, claim.until, at);
      touch(touched, streams, itsDigest);
    }
    this.compare(claim, touched, hexOf(this.tree.rootAt(claim.size)));
    this.rows = this.rows.filter(([seq]) => seq >= claim.size);
  }
  compare(claim, touched, root) {
    const rows = [...touched].sort(byCode), leaves = rows.map(([name, row], at) => [at, leafOf([name, ...row])]);
    const made = leaves.length ? hexOf(rootOfChosen(leaves, leaves.length, [])) : "";
    if (root !== null && root !== claim.root) this.ledger.refute("V18.root", "not the tree's root at its end", claim.seq, root, claim.root);
    if (rows.length !== claim.streams || made !== claim.manifest) {
      this.ledger.refute("V18.manifest", "not the streams that have records in the epoch", claim.seq, [rows.length, made], [claim.streams, claim.manifest]);
    }
  }
}
const leafOf = (row) => sha256(ZERO_BYTE, bytesOf(render(row)));

// The moment (in microseconds) at which a day begins in a zone: the earlier one where there are two, and where there is
// none as if the clock had not been set forward. Throws RangeError for a zone that the browser does not know.
function dayBegins(local, zone) {
  const parts = new Intl.DateTimeFormat("en-u-ca-gregory", {timeZone: zone, hourCycle: "h23", year: "numeric", month: "2-digit",
    day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit"});
  const offset = (at) => {
    const found = Object.fromEntries(parts.formatToParts(at).map((part) => [part.type, Number(part.value)]));
    return Date.UTC(found.year, found.month - 1, found.day, found.hour, found.minute, found.second) - at;
  };
  const before = offset(local - 86400e3), after = offset(local + 86400e3);
  const early = local - before, late = local - after;
  return 1000 * (offset(early) === before || offset(late) !== after ? early : late);
}

const PROOF_SHAPE = record({v: constant(1), epoch: integer(0), proof: listing(HEX64, 4096),
  rows: listing(fixed(integer(0), text("g|[arpw]\\.[0-9a-f]{32}"), integer(0), integer(0), DIGEST), 8)});

// What an extract shows of its subject: everything between two ends of epochs, or that there is nothing.
class Presence {
  constructor(ledger, epochs, scope, members, rows) {
    const subject = scope.kind === "agent" ? streamOf("a", scope.agent) : scope.kind === "case" ? streamOf("r", scope.run)
      : scope.kind === "workflow" ? streamOf("w", scope.workflow) : null;
    Object.assign(this, {ledger, epochs, scope, members, rows, subject, places: new Map()});
  }
  check(zones) {
    const {ledger, scope, subject, rows} = this;
    ledger.ran("V18", rows.length);
    for (const claim of this.epochs.claims) {
      const place = this.below(claim.size);
      for (const row of rows.slice(Math.max(place - 1, 0), place + 1)) {
        if ((row.at >= claim.until) !== (row.seq >= claim.size)) ledger.refute("V18.until", "on the wrong side of an epoch's end", row.seq, claim.until, row.at);
      }
    }
    if (has(scope, "day")) this.day(zones);
    const window = this.window(), low = window[0]?.from ?? 0, high = window.at(-1)?.size ?? 0;
    const wanted = subject === null ? [] : window.map((claim) => `epochs/${claim.epoch}.json`).sort();
    const found = [...this.members.keys()].filter((name) => name.startsWith("epochs/")).sort();
    if (!equal(wanted, found)) ledger.refute("V18.members", "not the proofs of the scope's epochs", null, wanted.slice(0, 20), found.slice(0, 20));
    if (window.length) this.placed(low, high);
    if (subject === null) this.period(window);
    else {
      for (const claim of window) this.shown(claim);
      if (scope.kind === "case") {
        const first = rows.find((row) => has(row.streams, subject) && row.seq >= low)?.streams[subject][0] ?? null;
        if (first !== 0) ledger.refute("V18.scope", "the beginning of the run is not there", null, 0, first);
      }
    }
    if (!window.length || ledger.status("V18") !== "ok") return null;
    return rows.filter((row) => low <= row.seq && row.seq < high && (subject === null || has(row.streams, subject))).length;
  }
  below(seq) {
    let low = 0, high = this.rows.length;
    while (low < high) { const middle = (low + high) >> 1; if (this.rows[middle].seq < seq) low = middle + 1; else high = middle; }
    return low;
  }
  window() {
    const {scope, ledger} = this, {claims} = this.epochs;
    if (scope.to <= scope.from) ledger.refute("V18.scope", "ends before it begins", null, scope.from, scope.to);
    if (!claims.length || claims.at(-1).until < scope.to) {
      ledger.lack("V18.open", "no epoch that was closed reaches the end of the scope", null, scope.to, claims.at(-1)?.until ?? null);
    }
    const end = claims.findIndex((claim) => claim.until >= scope.to);
    return claims.slice(0, end < 0 ? claims.length : end + 1).filter((claim) => claim.until > scope.from);
  }
  day(zones) {
    const {day, zone, from, to} = this.scope, {ledger} = this;
    if (!zones.includes(zone)) ledger.refute("V18.scope", "a day in a zone of no policy", null, zones, zone);
    try {
      const local = Date.parse(`${day}T00:00:00Z`);
      if (Number.isNaN(local) || new Date(local).toISOString().slice(0, 10) !== day) throw new RangeError("no such day");
      const bounds = [dayBegins(local, zone), dayBegins(local + 86400e3, zone)];
      if (!equal(bounds, [from, to])) ledger.refute("V18.scope", "other times than those of the day", null, bounds, [from, to]);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      ledger.lack("V18.no_zone", `no such day, or no time zone ${zone} in this browser`);
    }
  }
  // Every record is the subject's, or of the general stream; outside the epochs only what belongs to it.
  placed(low, high) {
    const mine = (row) => this.subject === null || has(row.streams, this.subject), inside = (row) => low <= row.seq && row.seq < high;
    const own = this.rows.filter((row) => inside(row) && mine(row)), actions = new Set(own.map((row) => row.action));
    const runs = new Set(own.map((row) => row.run));
    actions.delete("");
    runs.delete("");
    for (const row of this.rows) {
      if (has(row.streams, "g") || (mine(row) && inside(row))) continue;
      const begins = ["run.started", "run.ended"].includes(row.kind) && runs.has(row.run);
      if (!mine(row) || !(begins || actions.has(row.action))) {
        this.ledger.refute("V18.scope", "a record that the scope does not have", row.seq, null, row.kind);
      }
    }
    const wanted = this.scope.action ?? null;
    if (wanted !== null && this.rows.every((row) => row.action !== wanted)) {
      this.ledger.refute("V18.scope", "the action that the case is about is not there", null, wanted);
    }
  }
  period(window) {
    for (const claim of window) {
      const own = this.rows.slice(this.below(claim.from), this.below(claim.size));
      if (own.length !== claim.size - claim.from) {
        const gap = own.findIndex((row, at) => row.seq !== claim.from + at);
        this.ledger.refute("V18.hidden", "a record of the period is not there", claim.from + (gap < 0 ? own.length : gap));
        continue;
      }
      const touched = new Map();
      for (const row of own) touch(touched, row.streams, row.digest);
      this.epochs.compare(claim, touched, null);
    }
  }
  shown(claim) {
    const name = `epochs/${claim.epoch}.json`, raw = this.members.get(name);
    if (raw === undefined) return;
    try {
      const rows = this.proved(raw, claim);
      for (const stream of [this.subject, "g"]) this.stream(claim, stream, this.entry(rows, stream, claim.streams));
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.ledger.refute("V18.proof", `${name} ${error.message}`, claim.seq);
    }
  }
  proved(raw, claim) {
    const document = parse(raw, 16 * MB), reason = PROOF_SHAPE(document);
    if (reason) throw new Malformed(`does not have the shape of a proof${reason}`);
    if (document.epoch !== claim.epoch) throw new Malformed("is the proof of another epoch");
    const {rows} = document;
    if (rows.some((row, at) => at && rows[at - 1][1] >= row[1])) throw new Malformed("has streams that are not in ascending order");
    const leaves = rows.map(([place, ...row]) => [place, leafOf(row)]);
    if (hexOf(rootOfChosen(leaves, claim.streams, document.proof.map(fromHex))) !== claim.manifest) {
      throw new Malformed("does not lead to the manifest that the log has");
    }
    return rows;
  }
  // First place, last place and last digest of a stream; null when its neighbours show that it has none.
  entry(rows, stream, streams) {
    const own = rows.find((row) => row[1] === stream);
    if (own) {
      if (own[2] > own[3]) throw new Malformed(`has ${stream} end before it begins`);
      return own.slice(2);
    }
    const below = rows.filter((row) => row[1] < stream), above = rows.filter((row) => row[1] > stream);
    if ((below.length ? below.at(-1)[0] + 1 : 0) !== (above.length ? above[0][0] : streams)) {
      throw new Malformed(`shows neither an entry of ${stream} nor the two neighbours that leave no place for it`);
    }
    return null;
  }
  stream(claim, stream, entry) {
    const own = this.rows.slice(this.below(claim.from), this.below(claim.size)).filter((row) => has(row.streams, stream)), {ledger} = this;
    if (entry === null) {
      if (own.length) ledger.refute("V18.proof", `the manifest does not have ${stream}`, own[0].seq);
      return;
    }
    const [first, last, itsDigest] = entry, expected = this.places.get(stream) ?? first;
    if (first !== expected) ledger.refute("V18.chain", `${stream} does not go on where it ended`, claim.seq, expected, first);
    this.places.set(stream, last + 1);
    const gap = own.findIndex((row, at) => row.streams[stream][0] !== first + at);
    if (gap >= 0 || own.length !== last - first + 1) {
      const there = first + (gap < 0 ? own.length : gap);
      ledger.refute("V18.hidden", `a record of ${stream} is not there: the one at its place ${there}`, claim.seq, [first, last]);
    } else if (own.at(-1).digest !== itsDigest) {
      ledger.refute("V18.hidden", `${stream} ends in another record`, own.at(-1).seq, itsDigest, own.at(-1).digest);
    }
  }
}

// V08 over the records: the log's own line and the cosignatures of the auditor's witnesses. The policy's own quorum is
// left to countermark-verify.
class Witnessed {
  constructor(ledger, trust, authority, tree) {
    Object.assign(this, {ledger, trust, authority, tree, size: 0, reach: 0, records: 0, keys: []});
  }
  took(written) {
    try {
      this.keys = [verifierKey(written, 1), ...this.keys.slice(0, 1)];
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      this.keys = [];
    }
  }
  async check(seq, {kind, at, body, lane}) {
    if (kind === "gate.started") { this.lane = lane; this.took(body.log_key); }
    else if (kind === "lane.succeeded") { this.lane = body.lane; this.took(body.log_key); }
    else if (kind === "key.rotated") this.took(keyOfLog(`countermark/${body.rotation.deployment}/${body.rotation.lane}`, body.rotation.new));
    else if (kind === "head.witnessed") await this.witnessed(seq, at, body);
  }
  async witnessed(seq, at, body) {
    const {ledger, trust} = this, refute = (code, why, expected = null, actual = null) => ledger.refute(code, why, seq, expected, actual);
    this.records++;
    ledger.ran("V08", 1);
    if (!(body.asked <= body.answered && body.answered <= at)) refute("V08.record", "asked, answered and recorded in another order", null, [body.asked, body.answered, at]);
    if (!(this.size < body.size && body.size <= seq)) {
      refute("V08.record", "not a larger head than the one witnessed before", this.size, body.size);
      return;
    }
    this.size = body.size;
    const root = this.tree ? hexOf(this.tree.rootAt(body.size)) : body.root;  // of an extract there is no tree
    if (body.root !== root) { refute("V08.root", "witnesses are said to have seen another log than this one", root, body.root); return; }
    let head;
    try {
      head = parseCheckpoint(bytesOf(body.note));
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      refute("V08.record", `the note ${error.message}`);
      return;
    }
    if (head.origin !== `countermark/${this.authority.deployment}/${this.lane}` || head.size !== body.size || hexOf(head.root) !== body.root) {
      refute("V08.record", "the note is that of another head", [body.size, body.root], [head.origin, head.size, hexOf(head.root)]);
      return;
    }
    let own = false;
    for (const key of this.keys) own = own || await lineSigned(head, key, false) === true;
    if (!own) refute("V08.record", "the log's own line is missing or does not verify");
    if (!trust?.witnesses.length) return;
    const operators = await cosigners(ledger, head, trust, seq);
    if (this.tree && operators.size >= trust.quorum) this.reach = body.size;
  }
}

// The trusted keys of the log, with those that rotations lead to from them, which both keys signed.
function keyOfLog(name, written) {
  const raw = joined(ONE_BYTE, decode64(written.slice(8)));
  return `${name}+${hexOf(sha256(bytesOf(`${name}\n`), raw).subarray(0, 4))}+${encode64(raw)}`;
}
async function reached(trust, raws) {
  const found = trust.keys.map((key) => key.text), steps = [];
  for (const raw of raws) {
    if (!new TextDecoder("latin1").decode(raw).includes('"kind":"key.rotated"')) continue;
    try {
      const {kind, body} = parseRecord(raw);
      if (kind !== "key.rotated") continue;
      const {rotation: said, proofs} = body, origin = `countermark/${said.deployment}/${said.lane}`, message = signingBytes("rotation", said);
      if (origin !== trust.origin || !await signedText(said.old, proofs.old, message) || !await signedText(said.new, proofs.new, message)) continue;
      steps.push([keyOfLog(origin, said.old), keyOfLog(origin, said.new)]);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
    }
  }
  for (const [old, next] of steps) if (found.includes(old) && !found.includes(next)) found.push(next);
  const before = new Set(found);
  for (const [old, next] of steps.reverse()) if (before.has(next)) before.add(old);
  return {...trust, keys: found.map((written) => verifierKey(written, 1)), keysEver: before};
}

// ---------------------------------------------------------------- part 5: population.csv, and the page's figures

const HEADER = "seq,at,id,run,agent,call_id,tool,payee,amount,currency,asked,decided,disposition,stage,code,answers,settled,"
  + "outcome,outcome_code,settled_amount,settled_currency,ref";
const SPELLED = /[\u0000-\u001f\u007f-\u00a0\\;\u061c\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff]/g;
const FORMULA = /^ *[=+\-@'\uff1d\uff0b\uff0d\uff20]/;

function cell(value) {
  if (value === null || value === undefined || value === "") return "";
  if (typeof value === "number") return String(value);
  const spelled = value.replace(SPELLED, (found) => "\\u" + found.charCodeAt(0).toString(16).padStart(4, "0")).replaceAll('"', '""');
  return `"${FORMULA.test(spelled) ? "'" : ""}${spelled}"`;
}

function moment(at) {
  const seconds = Math.floor(at / 1e6), date = new Date(seconds * 1000).toISOString().slice(0, 19);
  return `${date}.${String(at - seconds * 1e6).padStart(6, "0")}Z`;
}

// By code point: a currency is any text, and so no member's name.
const sumsOf = (map) => [...map].map(([name, sum]) => [name, String(sum), hexOf(bytesOf(name))])
  .sort((a, b) => a[2] < b[2] ? -1 : 1).map(([name, sum]) => [name, sum]);

class Population {
  constructor() { this.actions = new Map(); }
  check(seq, {kind, at, body}) {
    const known = this.actions.get(body.id);
    if (kind === "action.decided") {
      if (known) Object.assign(known, {last: body, decided: seq});
      else this.actions.set(body.id, {seq, at, first: body, last: body, decided: seq, answers: [], outcome: null, settled: null});
    } else if (known && kind === "escalation.answered") known.answers.push(`${body.approval.verdict} ${body.approval.person}`);
    else if (known && kind === "action.settled") Object.assign(known, {outcome: body, settled: seq});
  }
  asked() {
    const sums = new Map();
    for (const {first: {terms}} of this.actions.values()) {
      if (terms.amount !== null && terms.currency !== null) sums.set(terms.currency, (sums.get(terms.currency) ?? 0n) + BigInt(terms.amount));
    }
    return sums;
  }
  inside({from, to}) {
    const own = [...this.actions.values()].filter((one) => from <= one.at && one.at < to), asked = new Map(), moved = new Map();
    const count = (sums, amount, currency) => {
      if (amount !== null && currency !== null) sums.set(currency, (sums.get(currency) ?? 0n) + BigInt(amount));
    };
    for (const {first: {terms}, outcome} of own) {
      count(asked, terms.amount, terms.currency);
      if (outcome?.outcome !== "confirmed") continue;
      const booked = outcome.settled ?? outcome.terms;
      count(moved, booked.amount, booked.currency ?? outcome.terms.currency);
    }
    return {actions: own.length, asked: sumsOf(asked), totals: sumsOf(moved)};
  }
  *lines() {
    yield bytesOf(HEADER + "\r\n");
    for (const {seq, at, first, last, decided, answers, outcome, settled} of this.actions.values()) {
      const state = outcome?.outcome ?? (["allow", "flag"].includes(last.disposition) ? "open" : "");
      yield bytesOf([seq, moment(at), first.id, first.run, first.agent, first.call_id, first.tool, first.terms.payee,
        first.terms.amount, first.terms.currency, first.disposition, decided, last.disposition, last.stage, last.code,
        answers.join(", "), settled, state, outcome?.code, outcome?.settled?.amount, outcome?.settled?.currency, outcome?.ref,
      ].map(cell).join(",") + "\r\n");
    }
  }
  finish(ledger, found) {
    if (found === undefined) return;
    ledger.ran("V15", this.actions.size);
    let place = 0, number = 0;
    for (const line of this.lines()) {
      number++;
      if (!same(found.subarray(place, place + line.length), line)) {
        const seq = number > 1 ? [...this.actions.values()][number - 2].seq : null;
        ledger.refute("V15.population", `${POPULATION} says something else than the records in line ${number}`, seq,
          textOf(line).trimEnd(), new TextDecoder().decode(found.subarray(place, place + 400)).split("\n")[0]);
        return;
      }
      place += line.length;
    }
    if (place !== found.length) ledger.refute("V15.population", `${POPULATION} has more lines than there are actions`);
  }
}

class Counts {
  constructor() {
    Object.assign(this, {kinds: new Map(), dispositions: new Map(), outcomes: new Map(), totals: new Map(), tiers: new Set(),
                         waived: {would_deny: 0, would_escalate: 0}, population: new Population(), states: new Map()});
  }
  check(seq, found) {
    const {kind, body} = found, more = (map, name, by) => map.set(name, (map.get(name) ?? (typeof by === "bigint" ? 0n : 0)) + by);
    more(this.kinds, kind, 1);
    this.population.check(seq, found);
    if (kind === "action.decided") {
      more(this.dispositions, body.disposition, 1);
      if (body.stage === "monitor" && has(this.waived, body.code)) this.waived[body.code]++;
      if (["allow", "flag"].includes(body.disposition)) { this.tiers.add(body.tier); this.states.set(body.id, "open"); }
    } else if (kind === "action.settled") {
      more(this.outcomes, body.outcome, 1);
      if (this.states.has(body.id)) this.states.set(body.id, body.outcome);
      const {terms} = body, moved = body.settled ?? terms, currency = moved.currency ?? terms.currency;
      if (body.outcome === "confirmed" && moved.amount !== null && currency !== null) more(this.totals, currency, BigInt(moved.amount));
    }
  }
  figures(pack, predicate) {
    const sorted = (map) => Object.fromEntries([...map].sort(([a], [b]) => a < b ? -1 : 1));
    const states = [...this.states.values()], some = (state) => states.filter((one) => one === state).length;
    return {
      v: 1, ...pack, kinds: sorted(this.kinds), dispositions: sorted(this.dispositions), waived: this.waived,
      outcomes: sorted(this.outcomes), open: some("open"), unknown: some("unknown"), withheld: predicate.withheld,
      erased: predicate.erased, disclosed: predicate.disclosed, actions: this.population.actions.size,
      totals: sumsOf(this.totals), asked: sumsOf(this.population.asked()),
      ...pack.scope ? {inside: this.population.inside(pack.scope)} : {},
    };
  }
}

const FIGURES = /<script type="application\/json" id="figures">([^<]*)<\/script>/g;
function figuresOf(page) {
  const found = [...textOf(page).matchAll(FIGURES)];
  if (found.length !== 1) throw new Malformed("does not hold its figures once");
  return parseLoose(found[0][1]);
}

function checkPage(ledger, page, expected) {
  if (page === undefined) return;
  ledger.ran("V15", 1);
  try {
    const shown = figuresOf(page), names = Object.keys(expected).filter((name) => !isObject(shown) || !has(shown, name) || render(shown[name]) !== looseRender(expected[name]));
    if (!isObject(shown) || names.length || Object.keys(shown).length !== Object.keys(expected).length) {
      ledger.refute("V15.page", `${PAGE} shows other figures than the records give: ${names.join(", ")}`, null,
        names.length ? expected[names[0]] : null, names.length && isObject(shown) ? shown[names[0]] ?? null : null);
    }
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    ledger.refute("V15.page", `${PAGE} ${error.message}`);
  }
}
function looseRender(value) {
  try {
    return render(value);
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

// ---------------------------------------------------------------- part 6: the steps in their order, and the report

const STEPS = [["V01", "container"], ["V02", "manifest"], ["V03", "head"], ["V04", "records"], ["V05", "tree"],
  ["V06", "order"], ["V07", "trusted heads"], ["V08", "witnesses"], ["V09", "policy"], ["V10", "authority"],
  ["V11", "life"], ["V12", "digests"], ["V13", "facts"], ["V14", "decisions"], ["V15", "completeness"], ["V16", "time"],
  ["V17", "anchors"], ["V18", "epochs"], ["V19", "erasure"], ["V20", "effects"], ["V21", "workflows"]];
const ELSEWHERE = ["V13", "V14", "V16", "V17", "V19", "V20", "V21"];

class Ledger {
  constructor() {
    this.steps = new Map(STEPS.map(([step, title]) => [step, {step, title, status: "skipped", checked: 0, findings: [], leftOut: 0}]));
    this.firstBad = null;
    this.unreadable = false;
  }
  ran(step, checked = 0) {
    const result = this.steps.get(step);
    result.checked += checked;
    if (result.status === "skipped") result.status = "ok";
  }
  refute(code, message, seq = null, expected = null, actual = null) {
    this.add("refuted", {code, message, seq, expected, actual});
    if (seq !== null && (this.firstBad === null || seq < this.firstBad)) this.firstBad = seq;
  }
  lack(code, message, seq = null, expected = null, actual = null) {
    this.add("incomplete", {code, message, seq, expected, actual});
  }
  add(status, finding) {
    const result = this.steps.get(finding.code.slice(0, 3));
    if (result.findings.length < FINDINGS_MAX) result.findings.push(finding); else result.leftOut++;
    result.status = "refuted" === status || result.status === "refuted" ? "refuted" : "incomplete";
  }
  status(step) { return this.steps.get(step).status; }
  verdict() {
    const all = [...this.steps.values()];
    if (this.unreadable) return "unreadable";
    if (all.some((one) => one.status === "refuted")) return "refuted";
    const missing = all.some((one) => one.status === "skipped" && one.step !== "V08" && !ELSEWHERE.includes(one.step));
    return missing || all.some((one) => one.status === "incomplete") ? "incomplete" : "verified";
  }
}

async function checkManifest(ledger, members, trust) {
  ledger.ran("V02");
  let manifest;
  try {
    manifest = readManifest(members.get(MANIFEST));
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    ledger.refute("V02.form", `the manifest ${error.message}`);
    return null;
  }
  if (!trust?.keys.length) ledger.lack("V02.no_trust", "no trusted log key: whoever made this pack cannot be established");
  else {
    let good = false;
    for (const key of trust.keys) good = good || await signed(key.key, manifest.signature, manifest.signed);
    if (!good || manifest.keyName !== trust.origin) ledger.refute("V02.signature", "the manifest is not signed by a trusted log key");
  }
  const present = [...members.keys()].filter((name) => name !== MANIFEST).sort(), listed = manifest.subjects.map(([name]) => name);
  if (listed.join("\n") !== present.join("\n")) {
    const without = (some, others) => { const set = new Set(others); return some.filter((name) => !set.has(name)).slice(0, 20); };
    ledger.refute("V02.members", "the manifest names other members than the pack has", null, without(listed, present), without(present, listed));
  }
  for (const [name, expected] of manifest.subjects) {
    if (name === MANIFEST || !members.has(name)) continue;
    ledger.ran("V02", 1);
    const actual = hexOf(await webHash(members.get(name)));
    if (actual !== expected) ledger.refute("V02.digest", `${name} is not what was signed`, null, expected, actual);
  }
  return manifest;
}

async function checkHead(ledger, members, manifest, trust) {
  ledger.ran("V03", 1);
  let head;
  try {
    head = parseCheckpoint(members.get(CHECKPOINT));
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    ledger.refute("V03.form", `the head ${error.message}`);
    return null;
  }
  if (head.lines[0].name !== head.origin) ledger.refute("V03.signature", "the first signature is not the log's", null, head.origin, head.lines[0].name);
  if (!trust?.keys.length) ledger.lack("V03.no_trust", "no trusted log key: whose head this is cannot be established");
  else {
    if (head.origin !== trust.origin) ledger.refute("V03.origin", "this pack is of another log than the trust file", null, trust.origin, head.origin);
    const verdicts = [];
    for (const key of trust.keys) verdicts.push(await lineSigned(head, key, false));
    if (!verdicts.includes(true) || verdicts.includes(false)) ledger.refute("V03.signature", "the head is not signed by a trusted log key");
  }
  if (manifest !== null) {
    const said = manifest.predicate, root = encode64(head.root);
    for (const [name, expected, actual] of [["origin", head.origin, said.origin],
      ["deployment and lane", head.origin, `countermark/${said.deployment}/${said.lane}`],
      ["key name", head.origin, manifest.keyName], ["size", head.size, said.size], ["root", root, said.root]]) {
      if (expected !== actual) ledger.refute("V03.mismatch", `the manifest has another ${name} than the head`, null, expected, actual);
    }
  }
  return head;
}

function* entriesOf(ledger, members, size) {
  let first = 0;
  for (const [name, width] of entryNames(size)) {
    const data = members.get(name);
    if (data === undefined) { ledger.refute("V05.size", `${name} is missing`, first); return; }
    let place = 0;
    for (let offset = 0; offset < width; offset++) {
      const end = place + 2 + (data[place] << 8 | data[place + 1]);
      if (place + 2 > data.length || end > data.length) {
        ledger.refute("V05.size", `${name} ends inside an entry`, first + offset);
        return;
      }
      yield data.subarray(place + 2, end);
      place = end;
    }
    if (place !== data.length) { ledger.refute("V05.size", `${name} has bytes after its last entry`, first + width); return; }
    first += width;
  }
}

function checkTree(ledger, members, head, tree, size) {
  ledger.ran("V05", tree.size);
  if (tree.size !== size) ledger.refute("V05.size", "fewer entries than the head says", tree.size, size, tree.size);
  if (head !== null && tree.size === head.size && !same(tree.rootAt(tree.size), head.root)) {
    ledger.refute("V05.root", "the records do not give the head's root", null, encode64(head.root), encode64(tree.rootAt(tree.size)));
  }
  const wanted = new Set([...entryNames(tree.size)].map(([name]) => name));
  for (const {name, tile, index, content} of tree.tiles()) {
    wanted.add(name);
    ledger.ran("V05", 1);
    const seq = index * 256 ** (tile + 1), data = members.get(name);
    if (data === undefined) { if (tree.size === size) ledger.refute("V05.tile", `${name} is missing`, seq); continue; }
    const differs = content.findIndex((hash, at) => !same(hash, data.subarray(32 * at, 32 * at + 32)));
    if (differs >= 0 || data.length !== 32 * content.length) {
      ledger.refute("V05.tile", `${name} is not the recomputed tile`, seq + Math.max(differs, 0) * 256 ** tile);
    }
  }
  if (tree.size !== size) return;
  for (const name of members.keys()) if (tilePosition(name) && !wanted.has(name)) ledger.refute("V05.tile", `${name} is no tile of this size`);
}

function checkTrusted(ledger, tree, size, trust, cosigned, reach) {
  if (!trust || !(trust.heads.length || cosigned || reach)) ledger.lack("V07.no_trust", "no retained head and no witness quorum: a rewrite of this log would not show");
  if (!trust) return;
  ledger.ran("V07", trust.heads.length + trust.leaves.length);
  let exact = null;
  trust.leaves.forEach((expected, at) => {
    const seq = trust.leafFrom + at;
    if (seq >= tree.size || exact !== null) return;
    const actual = hexOf(tree.levels[0][seq]);
    if (actual === expected) return;
    exact = seq;
    ledger.refute("V07.rewritten", `the record at seq ${seq} is not the one whose leaf hash was retained`, seq, expected, actual);
  });
  let agreed = 0;
  for (const head of trust.heads.filter((one) => one.size <= tree.size)) {
    const root = tree.rootAt(head.size);
    if (same(root, head.root)) { agreed = head.size; continue; }
    ledger.refute("V07.rewritten", `history was rewritten: it agrees with the head of size ${agreed} and no longer with the one of size `
      + `${head.size} (${head.source}), so the first change is between seq ${agreed} and ${head.size - 1}`, exact,
      {agrees: agreed, disagrees: head.size, root: encode64(head.root)}, {root: encode64(root)});
    break;
  }
  const newest = Math.max(trust.heads.at(-1)?.size ?? 0, reach), retained = trust.leaves.length ? trust.leafFrom + trust.leaves.length : 0;
  if (newest > tree.size) ledger.lack("V07.truncated", "shorter than a head that the auditor retained", null, newest, tree.size);
  else if (retained > tree.size) ledger.lack("V07.truncated", "shorter than the retained leaf hashes", null, retained, tree.size);
  else if (newest < size && newest && !cosigned) {
    ledger.lack("V07.later", `${size - newest} records are later than the newest trusted head`, newest, newest, size);
  }
}

// The operators whose witnesses, of those that the auditor names, cosigned; the deployment's own never count.
async function cosigners(ledger, head, trust, seq) {
  const operators = new Set();
  for (const {key, operator} of trust.witnesses) {
    if (key === null) continue;  // ML-DSA: no browser checks it yet
    const verdict = await lineSigned(head, key, true);
    if (verdict === null) continue;
    ledger.ran("V08", 1);
    if (!verdict) ledger.refute("V08.cosignature", `a cosignature of ${key.name} does not verify`, seq);
    else if (operator.toLowerCase() !== trust.deployment.toLowerCase()) operators.add(operator.toLowerCase());
  }
  return operators;
}

async function checkWitnesses(ledger, head, trust) {
  if (!trust?.witnesses.length || head === null) return false;
  ledger.ran("V08");
  const operators = await cosigners(ledger, head, trust, null);
  if (operators.size >= trust.quorum) return true;
  ledger.lack("V08.quorum", "fewer independent operators than the quorum", null, trust.quorum, operators.size);
  return false;
}

function* numbered(raws) { let seq = 0; for (const raw of raws) yield [seq++, raw]; }

// One pass over the records. `breathe` lets the page draw. Of an extract `tree` is null.
async function checkRecords(ledger, members, trust, head, manifest, tree, size, extract, breathe) {
  for (const step of ["V04", "V05", "V06", "V09", "V10", "V11", "V12"]) ledger.ran(step);
  const authority = new Authority(ledger, trust, members, head, tree), identity = new Identity(ledger, authority, members.get(DISCLOSURES));
  const whole = extract === null, order = new Order(ledger, whole), life = new Life(ledger, authority, whole), counts = new Counts();
  const epochs = new Epochs(ledger, tree), witnessed = new Witnessed(ledger, trust, authority, tree);
  let unreadable = 0, place = 0;
  for (const [seq, raw] of whole ? numbered(entriesOf(ledger, members, size)) : extract.entries()) {
    const itsDigest = digest("record", raw), leaf = sha256(ZERO_BYTE, raw);
    if (place++ % 16 === 0) await breathe(seq, size);
    if (whole) tree.append(leaf); else extract.leaves.push([seq, leaf]);
    ledger.ran("V04", 1);
    let found;
    try {
      found = parseRecord(raw);
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      ledger.refute("V04.record", `the record ${error.message}`, seq);
      order.unreadable(seq, itsDigest);
      life.parked = null;
      if (++unreadable === UNREADABLE_MAX) break;
      continue;
    }
    const by = writer(found.kind, found.body);
    if (found.by !== by) ledger.refute("V04.record", `the record is not by ${by}`, seq, by, found.by);
    if (seq === 0 && found.kind !== "gate.started") ledger.refute("V04.record", "the first record is not gate.started", 0, "gate.started", found.kind);
    order.check(seq, found, itsDigest);
    identity.check(seq, found);
    authority.present = itsDigest;
    authority.listEnded(found.kind);
    await authority.check(seq, found);
    life.check(seq, found, itsDigest);
    epochs.check(seq, found, itsDigest);
    await witnessed.check(seq, found);
    counts.check(seq, found);
    extract?.note(seq, found, itsDigest);
  }
  authority.listEnded("");
  for (const step of [authority, life, identity]) step.finish();
  ledger.ran("V15", place);
  if (!unreadable) counts.population.finish(ledger, members.get(POPULATION));
  if (manifest !== null) {
    const {withheld, erased, disclosed} = manifest.predicate;
    if (extract !== null && erased !== identity.gone) {
      if (!verifiedHead(head, trust)) ledger.lack("V19.extract", "values were erased whose records are not all here", null, identity.gone, erased);
    } else if (erased > identity.gone) {
      const restored = counts.kinds.has("lane.succeeded"), say = restored ? ledger.lack : ledger.refute;
      say.call(ledger, "V15.erased", "values are said to be erased, and no record says by whom", null, identity.gone, erased);
    } else if (erased < identity.gone) ledger.refute("V15.erased", "values that were erased are still there", null, identity.gone, erased);
    if (disclosed !== identity.disclosed) ledger.refute("V15.count", "another number of disclosed values", null, identity.disclosed, disclosed);
    if (withheld + erased + disclosed !== identity.sealed) ledger.refute("V15.count", "another number of sealed values", null, identity.sealed, withheld + erased + disclosed);
  }
  return {counts, authority, identity, epochs, witnessed};
}

// Did the auditor verify the whole log up to exactly this head? Then its facts and decisions were made again, elsewhere.
const verifiedHead = (head, trust) => head !== null && Boolean(trust?.heads.some((one) =>
  one.verified && one.size === head.size && same(one.root, head.root)));

// A browser makes no decision again, so without such a head it has nothing to call a pack verified by.
// From the head over a rotation on the log is signed by the new key: what was given up signs nothing alone.
async function handedOver(ledger, head, trust, authority) {
  const key = trust?.keys.find((one) => one.text === authority.rotated);
  if (head !== null && key && await lineSigned(head, key, false) !== true) {
    ledger.refute("V03.signature", "the head is not signed by the key that the log was handed over to");
  }
}

function undecided(ledger, counts, identity, head, trust) {
  const shown = identity.disclosed + identity.openedRequests;
  if (shown) {
    // They came with this pack and not with the log, so that nobody's verified head speaks for them.
    ledger.lack("V12.browser", `${shown} disclosed values were held against their digests only, not against declarations, business `
      + "keys, pseudonyms and requests: countermark-verify does", null, 0, shown);
  }
  const followed = counts.kinds.get("compute.executed") ?? 0;
  if (followed) ledger.lack("V21.browser", "runs of workflows were not followed, and their pure steps not executed again: countermark-verify does",
    null, 0, followed);
  if (verifiedHead(head, trust)) return;
  const many = [...counts.dispositions.values()].reduce((sum, one) => sum + one, 0);
  ledger.lack("V13.browser", "facts and budgets were not computed again here: countermark-verify does", null, many, 0);
  ledger.lack("V14.browser", "decisions were not made again here: countermark-verify does", null, many, 0);
}

function axesOf(ledger, counts, headsAgree, cosigned) {
  const refuted = (...steps) => steps.some((step) => ledger.status(step) === "refuted"), axis = (level, shown) => ({level, shown});
  const axes = {};
  axes.authority = refuted("V09", "V10", "V11", "V12", "V14") ? axis("refuted", "mandates, policy, approvals or effects contradict the records or the keys")
    : axis("operator", "signatures of people and agents were checked here; decisions were not made again, which is needed to say more");
  axes.integrity = refuted("V02", "V03", "V04", "V05", "V06", "V07", "V08") ? axis("refuted", "the records are not the log that was signed or retained")
    : cosigned ? axis("witnessed", "independent witnesses cosigned exactly this head")
    : headsAgree ? axis("retained", "the log equals the heads that the auditor retained; nobody independent cosigned it")
    : axis("log", "the records form a log; a rewrite with the deployment's own keys would not show");
  axes.computation = axis("recorded", "pure steps are recorded outputs, none was executed again");
  axes.effect = refuted("V11") ? axis("refuted", "outcomes contradict the intents")
    : counts.tiers.has("observing") ? axis("reported", `the agent's side reported ${counts.tiers.size === 1 ? "" : "some of "}the outcomes`)
    : axis("gate observed", "the gate recorded the provider's answers; nothing corroborates them here");
  axes.completeness = refuted("V05", "V06", "V11", "V15") ? axis("refuted", "records are missing, out of order, or counted otherwise")
    : ledger.status("V07") !== "ok" ? axis("none", "later records, or a shorter log, cannot be excluded")
    : ledger.status("V11") !== "ok" ? axis("open", "streams have no gaps, but intents have no outcome; not reconciled with a provider's books")
    : axis("gap-free", "streams have no gaps up to the trusted head; not reconciled with a provider's books");
  return axes;
}

function reported(ledger, axes, figures, pack) {
  return {
    verdict: ledger.verdict(), first_bad_seq: ledger.firstBad, axes, counts: figures, pack, not_done: NOT_DONE,
    steps: [...ledger.steps.values()].map(({step, title, status, checked, findings, leftOut}) => ({
      step, title, status: ELSEWHERE.includes(step) && status === "skipped" ? "not done here" : status, checked, left_out: leftOut,
      findings: [...findings].sort((a, b) => (a.code > b.code) - (a.code < b.code)),
    })),
  };
}

// The scope of an extract, before anything else is known of the pack: what the manifest is worth is V02's to say.
function scopeOf(members) {
  try {
    return readManifest(members.get(MANIFEST)).predicate.scope ?? null;
  } catch (error) {
    if (error instanceof Malformed) return null;
    throw error;
  }
}

function* rawsOf(members, extract) {
  const quiet = new Ledger();
  if (extract === null) {
    const positions = [...members.keys()].map(tilePosition).filter((one) => one?.level === "entries");
    yield* entriesOf(quiet, members, Math.max(0, ...positions.map(({index, width}) => index * 256 + width)));
  } else for (const [, raw] of Object.assign(Object.create(extract), {ledger: quiet}).entries()) yield raw;
}

// What the trust file asks for, and no browser does.
function leftOut(ledger, trust) {
  if (trust?.compromised) ledger.lack("V03.browser", "what was signed with a compromised key is judged by countermark-verify only");
  if (trust?.second) ledger.lack("V03.browser", "the log's second signature (ML-DSA-44) is checked by countermark-verify only");
  if (trust?.witnesses.some((one) => one.key === null)) ledger.lack("V08.browser", "cosignatures by ML-DSA-44 are checked by countermark-verify only");
  if (trust?.stamps) ledger.lack("V16.browser", "time stamps are checked by countermark-verify only");
  if (trust?.chains) ledger.lack("V17.browser", "anchors on a chain are checked by countermark-verify only");
}

async function verify(pack, trust, progress = () => {}) {
  const ledger = new Ledger(), nowhere = {size: null, root: null, origin: null};
  await selfTest();
  let members, rested = performance.now();
  const breathe = async (seq, size) => {
    if (performance.now() - rested < BREATH_MS) return;
    progress(seq, size);
    await new Promise((resolve) => { setTimeout(resolve); });
    rested = performance.now();
  };
  try {
    members = openPack(pack);
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    ledger.steps.get("V01").status = "refuted";
    ledger.steps.get("V01").findings.push({code: error.code, message: error.message, seq: null, expected: null, actual: null});
    if (error.code === "V01.browser") ledger.steps.get("V01").status = "incomplete"; else ledger.unreadable = true;
    return reported(ledger, {}, {}, nowhere);
  }
  ledger.ran("V01", members.size);
  if (!await hasEd25519()) {
    ledger.lack("V02.browser", "this browser cannot check Ed25519 signatures: use a newer one, or countermark-verify");
    return reported(ledger, {}, {}, nowhere);
  }
  const scope = scopeOf(members), extract = scope === null ? null : new Extract(ledger, members, scope);
  await extract?.inflate();
  if (trust) trust = await reached(trust, rawsOf(members, extract));
  const manifest = await checkManifest(ledger, members, trust), head = await checkHead(ledger, members, manifest, trust);
  const positions = [...members.keys()].map(tilePosition).filter((one) => one?.level === "entries");
  const size = head?.size ?? Math.max(0, ...positions.map(({index, width}) => index * 256 + width));
  leftOut(ledger, trust);
  const tree = extract === null ? new Tree() : null;
  const {counts, authority, identity, epochs, witnessed} = await checkRecords(ledger, members, trust, head, manifest, tree, size, extract, breathe);
  const cosigned = await checkWitnesses(ledger, head, trust), another = head !== null && trust && head.origin !== trust.origin;
  let shown = null;
  if (extract === null) {
    checkTree(ledger, members, head, tree, size);
    for (const name of members.keys()) {
      if (name === MULTIPROOF || /^(?:records|epochs)\//.test(name)) ledger.refute("V05.index", `${name} without a scope`);
    }
    if (!another) checkTrusted(ledger, tree, size, trust, cosigned, witnessed.reach);
  } else {
    extract.tree(head);
    const zones = [...authority.bundles.values()].map((bundle) => bundle.zone);
    shown = new Presence(ledger, epochs, scope, members, extract.rows).check(zones);
    if (!verifiedHead(head, trust)) ledger.lack("V18.extract", "the log's own epochs are believed: nobody verified the whole log up to this head");
    if (!another) extract.trusted(head, trust, cosigned, epochs.claims);
  }
  if (another) ledger.lack("V07.no_trust", "the heads of the trust file are those of another log");
  await handedOver(ledger, head, trust, authority);
  undecided(ledger, counts, identity, head, trust);
  const place = {origin: head?.origin ?? null, size, root: head ? encode64(head.root) : null};
  if (scope !== null) place.scope = scope;
  const figures = counts.figures(place, manifest?.predicate ?? {withheld: 0, erased: 0, disclosed: 0});
  checkPage(ledger, members.get(PAGE), figures);
  const agree = Boolean(trust?.heads.length) && ledger.status("V07") === "ok";
  const report = reported(ledger, axesOf(ledger, counts, agree, cosigned), figures, place);
  report.enrolled = [...authority.vouched].map(([key, {person, seq, by}]) => ({person, key, seq, by}));
  report.page = members.get(PAGE) ?? null;
  report.scope = scope === null ? null : {...scope, records: shown};
  return report;
}


// ---------------------------------------------------------------- part 7: the page

const WORDS = {
  verified: "everything that a browser checks holds against your trust file, and your trust file says that you verified the "
    + "whole log up to exactly this head: facts and decisions rest on that.",
  refuted: "this pack contradicts itself, the specification or what you trust.",
  other: "this pack does not fit your trust file, which is of another log; nothing else refutes it.",
  incomplete: "nothing was refuted, but something that is needed for a verdict is missing.",
  browser: "nothing was refuted, and everything that a browser can check holds. Facts and decisions were not made again here, so "
    + "whether each decision was right is open: countermark-verify answers that.",
  unreadable: "this file is not an evidence pack that can be read safely.",
};
// What a person may take from the steps, also where the verdict is not "verified": words, and the steps that carry them.
const ESTABLISHED = [
  ["the pack is whole, and signed by the log's key", ["V01", "V02", "V03"]],
  ["every record is in its form and in its place in the tree", ["V04", "V05"]],
  ["order, and streams without gaps", ["V06", "V18"]],
  ["the history is the one of the heads that you kept, or that your witnesses signed", ["V07", "V08"]],
  ["signatures of people, and that they signed just this; not who may sign what", ["V09", "V10"]],
  ["every outcome has its intent, and what is disclosed fits its digest", ["V11", "V12"]],
  ["population and figures are those of the records", ["V15"]],
  ["facts and decisions", ["V13", "V14"]],
];

// Nothing is missing but what no browser does.
const onlyBrowser = (report) => report.verdict === "incomplete" && report.pack.size !== null
  && report.steps.every((step) => step.status !== "skipped" || step.step === "V08")
  && report.steps.every((step) => step.findings.every((one) => /^V(?:0[3-9]|1[0-9]|21)\.browser$/.test(one.code)));

const ofAnotherLog = (report) => report.verdict === "refuted"
  && report.steps.every((step) => step.status !== "refuted" || step.step === "V02" || step.step === "V03")
  && report.steps.some((step) => step.findings.some((one) => one.code === "V03.origin" && one.seq === null && one.actual === report.pack.origin));

// The findings that made the verdict, the first of each step, without what no browser does.
function reasons(report) {
  const status = report.verdict === "verified" ? null : report.verdict === "incomplete" ? "incomplete" : "refuted";
  const found = report.steps.filter((step) => step.status === status).flatMap((step) => step.findings.slice(0, 1));
  return found.filter((one) => !/^V1[34]\.browser$/.test(one.code)).slice(0, 5)
    .map(({code, message, seq}) => `${code}${seq === null ? "" : ` at record ${seq}`}: ${message}`.slice(0, 400));
}

// "holds", "refuted", "yours" or "open", for each of the above.
function established(report) {
  const status = new Map(report.steps.map((step) => [step.step, step.status]));
  return ESTABLISHED.map(([words, steps]) => {
    const found = steps.map((step) => status.get(step) ?? "skipped");
    if (found.includes("refuted")) return [words, "refuted"];
    if (found.includes("not done here")) return [`${words}: you verified them over the whole log, your trust file says`, "yours"];
    return [words, found.includes("ok") && !found.includes("incomplete") ? "holds" : "open"];
  });
}
const NO_MINOR = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF".split(" ");
const THOUSANDTHS = "BHD IQD JOD KWD LYD OMR TND".split(" ");
const grouped = (digits) => digits.replace(/\B(?=(?:[0-9]{3})+$)/g, ",");

function money(amount, currency) {
  if (!/^[A-Za-z]{3}$/.test(currency)) return `${grouped(amount)} smallest units of ${currency}`;
  const name = currency.toUpperCase(), places = NO_MINOR.includes(name) ? 0 : THOUSANDTHS.includes(name) ? 3 : 2;
  const padded = amount.padStart(places + 1, "0"), cut = padded.length - places;
  return `${grouped(padded.slice(0, cut))}${places ? "." + padded.slice(cut) : ""} ${name}`;
}

// Does every figure that a person reads on this page stand so among its figures for programs?
function misprints(root, figures) {
  const wrong = [];
  for (const shown of root.querySelectorAll("[data-figure]")) {
    const path = shown.dataset.figure;
    const value = path.split("/").reduce((at, name) => isObject(at) && has(at, name) ? at[name] : 0, figures);
    if (shown.textContent !== grouped(String(value))) wrong.push(path);
  }
  for (const name of ["totals", "asked", ...has(figures, "inside") ? ["inside/totals", "inside/asked"] : []]) {
    const shown = [...root.querySelectorAll(`[data-sum^="${name}/"]`)].map((one) => one.textContent);
    const rows = name.split("/").reduce((at, one) => at[one], figures);
    const expected = rows.map(([currency, amount]) => money(amount, currency));
    // Text that could not be seen is spelled out on the page: such a currency is compared by the figures alone.
    const plain = rows.every(([currency]) => /^[\x20-\x7e]*$/.test(currency));
    if (plain ? shown.join("\n") !== expected.join("\n") : shown.length !== expected.length) wrong.push(name);
  }
  return wrong;
}

function start() {
  const find = (id) => document.getElementById(id);
  const element = (name, textContent = "", className = "") => Object.assign(document.createElement(name), {textContent, className});
  const chosen = {pack: null, trust: null};
  const own = (() => {
    try {
      return parseLoose(find("figures").textContent);
    } catch (error) {
      return null;
    }
  })();
  const refuse = (why) => {
    const main = find("told");
    for (const part of [...main.children]) if (part.id !== "check") part.remove();
    main.append(element("p", `${why} What this page said is not shown any more.`, "notice"));
  };
  const say = (word, why) => {
    find("verdict").className = word.toLowerCase();
    find("verdict").replaceChildren(element("b", word), why ? `: ${why}` : "");
  };
  find("no-scripts").remove();
  find("tools").hidden = false;
  if (own === null || misprints(document, own).length) refuse("The figures on this page are not those that it holds for programs.");

  function show(report) {
    say(report.verdict.toUpperCase(), WORDS[onlyBrowser(report) ? "browser" : ofAnotherLog(report) ? "other" : report.verdict]);
    const lines = document.createElement("ul");
    lines.className = "established";
    for (const [words, state] of established(report)) {
      const sign = {holds: "\u2713 holds", refuted: "\u2717 refuted", open: "\u25cb open", yours: "\u2713 yours"}[state];
      const line = element("li", "", {holds: "good", refuted: "bad", yours: "good"}[state] ?? "odd");
      line.append(element("b", sign), element("span", words));
      lines.append(line);
    }
    for (const line of reasons(report)) find("verdict").append(element("p", line));
    if (report.pack.size !== null) find("verdict").append(lines);
    document.getElementById("refuted")?.remove();
    if (report.verdict === "refuted") {
      const warning = element("p", "This pack was refuted. What follows is what it says, and not what happened.", "notice");
      find("check").after(Object.assign(warning, {id: "refuted"}));
    }
    const body = document.createElement("tbody");
    for (const step of report.steps) {
      const row = body.insertRow(), first = step.findings[0];
      row.insertCell().textContent = `${step.step} ${step.title}`;
      row.insertCell().append(element("b", step.status, {ok: "good", refuted: "bad"}[step.status] ?? "odd"));
      row.insertCell().textContent = step.checked.toLocaleString("en");
      const at = first?.seq === null || first === undefined ? "" : ` (seq ${first.seq})`, more = step.findings.length - 1 + step.left_out;
      row.insertCell().textContent = first ? `${first.code}${at}: ${first.message}${more > 0 ? ` (and ${more} more)` : ""}`.slice(0, 600) : "";
    }
    const head = document.createElement("thead").appendChild(document.createElement("tr"));
    for (const name of ["step", "status", "checked", "finding"]) head.append(Object.assign(element("th", name), {scope: "col"}));
    const table = document.createElement("table");
    table.append(element("caption", "Steps, as in the specification"), head.parentNode, body);
    const wide = Object.assign(element("div", "", "wide"), {tabIndex: 0});
    wide.setAttribute("role", "group");
    wide.setAttribute("aria-label", "Steps");
    wide.append(table);
    const axes = document.createElement("dl");
    for (const [name, {level, shown}] of Object.entries(report.axes)) axes.append(element("dt", name), element("dd", `${level}: ${shown}`));
    const left = document.createElement("ul");
    left.append(...report.not_done.map((line) => element("li", line)));
    find("report").replaceChildren(wide, element("h3", "How far the evidence reaches"), axes,
      element("h3", "Not done in this browser: use countermark-verify"), left);
  }

  // The page inside the pack is read, never run: scripts of a parsed document do not start.
  function compare(report) {
    if (!report.page) return;
    const inside = new DOMParser().parseFromString(textOf(report.page), "text/html");
    const wrong = misprints(inside, report.counts);
    if (wrong.length) refuse(`The page in the pack shows figures that its records do not give: ${wrong.slice(0, 5).join(", ")}.`);
    if (report.steps.some((step) => step.findings.some((one) => one.code === "V15.page"))) refuse("The figures of the page in the pack are not those of its records.");
    if (own === null) return;
    if (own.root !== report.pack.root || own.origin !== report.pack.origin) {
      find("report").prepend(element("p", "The pack that was checked is another one than the one that this page tells of.", "notice"));
    } else if (!equal(own, report.counts)) refuse("This page shows figures that the pack's records do not give.");
  }

  async function check() {
    if (chosen.pack === null) return say("NO PACK", "Choose the pack first.");
    find("report").replaceChildren();
    find("go").disabled = true;
    try {
      if (chosen.pack.size > PACK_BYTES_MAX) {
        return say("INCOMPLETE", `This pack has ${Math.ceil(chosen.pack.size / MB)} MB; a page reads ${PACK_BYTES_MAX / MB}. Use countermark-verify.`);
      }
      say("CHECKING", "");
      const bytes = async (file) => new Uint8Array(await file.arrayBuffer());
      let trust = null;
      if (chosen.trust !== null) {
        try {
          if (chosen.trust.size > TRUST_BYTES_MAX) throw new Malformed("is larger than this page reads");
          trust = await readTrust(await bytes(chosen.trust));
        } catch (error) {
          if (!(error instanceof Malformed)) throw error;
          return say("NO TRUST", `The trust file ${error.message}.`);
        }
      }
      const report = await verify(await bytes(chosen.pack), trust, (seq, size) => say("CHECKING", `record ${seq} of ${size}`));
      show(report);
      compare(report);
      delete report.page;
      globalThis.countermarkReport = report;
    } catch (error) {
      say("NO VERDICT", `The check itself failed: ${error.message}. Nothing was established.`);
    } finally {
      find("go").disabled = false;
    }
    return undefined;
  }

  const take = (file) => { chosen[file.name.toLowerCase().endsWith(".json") ? "trust" : "pack"] = file; };
  for (const name of ["pack", "trust"]) find(name).addEventListener("change", (event) => { chosen[name] = event.target.files[0] ?? null; });
  find("go").addEventListener("click", check);
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  document.addEventListener("dragleave", () => document.body.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    for (const file of event.dataTransfer.files) take(file);
    check();
  });
}

const countermark = {verify, readTrust, figuresOf, sha256, cell, money, parse, parseLoose, render, BODIES, Malformed};
if (typeof document === "undefined") globalThis.countermark = countermark; else start();
})();
