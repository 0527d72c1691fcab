// Verifies what Bellhop sends to a webhook. Node 16 or newer, nothing but its own modules.
//
// `headers` is an object with lower-case names (request.headers), `body` the Buffer of the request as
// it came: parse it afterwards. Every function returns the webhook-id, or throws NotVerified.
import { createHash, createHmac, createPublicKey, timingSafeEqual, verify } from "node:crypto";

const TOLERANCE_S = 300;

/** Answer 400 or 401, and do nothing else with the request. */
export class NotVerified extends Error {}

function same(a, b) {
  return a.length === b.length && timingSafeEqual(a, b);
}

/** The signed bytes, the signatures by kind, and the id. */
function read(headers, body, now) {
  const id = headers["webhook-id"];
  const timestamp = headers["webhook-timestamp"];
  const signature = headers["webhook-signature"];
  if (!id || !timestamp || !signature) throw new NotVerified("a webhook- header is missing");
  if (!/^[0-9]+$/.test(timestamp)) throw new NotVerified("webhook-timestamp is not a whole number");
  if (Math.abs(now - Number(timestamp)) > TOLERANCE_S) {
    throw new NotVerified("webhook-timestamp is more than five minutes away");
  }
  const entries = signature.split(" ").map((entry) => {
    const comma = entry.indexOf(",");
    return { kind: entry.slice(0, comma), bytes: Buffer.from(entry.slice(comma + 1), "base64") };
  });
  return { id, entries, signed: Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]) };
}

const seconds = () => Date.now() / 1000;

/** secrets: the whsec_ texts that are valid now: one, or during a rotation the old and the new. */
export function verifyStatic(secrets, headers, body, now = seconds()) {
  const { id, entries, signed } = read(headers, body, now);
  for (const secret of secrets) {
    const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
    const expected = createHmac("sha256", key).update(signed).digest();
    if (entries.some(({ kind, bytes }) => kind === "v1" && same(bytes, expected))) return id;
  }
  throw new NotVerified("no signature matches");
}

/** jwks: the parsed object of /.well-known/jwks.json. v1a names no key: each is tried. */
export function verifyDynamic(jwks, headers, body, now = seconds()) {
  const { id, entries, signed } = read(headers, body, now);
  for (const jwk of jwks.keys) {
    if (jwk.kty !== "OKP" || jwk.crv !== "Ed25519") continue;
    const key = createPublicKey({ key: jwk, format: "jwk" });
    const good = ({ kind, bytes }) => kind === "v1a" && verify(null, signed, key, bytes);
    if (entries.some(good)) return id;
  }
  throw new NotVerified("no signature matches");
}

/** The JWT mode: webhook-signature is a token that is bound to the body by its hash. */
export function verifyJwt(jwks, audience, headers, body, now = seconds()) {
  const wrong = new NotVerified("the token does not hold for this request");
  try {
    const token = headers["webhook-signature"].split(".");
    if (token.length !== 3) throw wrong;
    const [head, claims] = token.slice(0, 2).map((part) => JSON.parse(Buffer.from(part, "base64url")));
    if (head.alg !== "RS256") throw wrong; // the only one; never the token's choice
    const jwk = jwks.keys.find(({ kid, kty }) => kid === head.kid && kty === "RSA");
    const key = createPublicKey({ key: jwk, format: "jwk" });
    const signature = Buffer.from(token[2], "base64url");
    if (!verify("sha256", Buffer.from(`${token[0]}.${token[1]}`), key, signature)) throw wrong;
    if (claims.aud !== audience || claims.jti !== headers["webhook-id"]) throw wrong;
    if (!(claims.iat - TOLERANCE_S <= now && now <= claims.exp)) throw wrong;
    const digest = createHash("sha256").update(body).digest("hex");
    if (!same(Buffer.from(digest), Buffer.from(claims.body_sha256))) throw wrong;
    return claims.jti;
  } catch (error) {
    throw error instanceof NotVerified ? error : wrong;
  }
}

/** The key set of the broker: kept for ten minutes, and loaded anew at most once a minute when a
 * signature does not match, because the broker may have rotated (and because anybody can send a wrong
 * signature). Node 18 or newer, for fetch. */
export class Keys {
  #url;
  #jwks = null;
  #loadedAt = 0;

  constructor(url) {
    this.#url = url;
  }

  async get(fresh = false) {
    const age = performance.now() - this.#loadedAt;
    if (this.#jwks === null || age > (fresh ? 60_000 : 600_000)) {
      const answer = await fetch(this.#url, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) throw new Error(`${this.#url} answered ${answer.status}`);
      this.#jwks = await answer.json();
      this.#loadedAt = performance.now();
    }
    return this.#jwks;
  }

  async verify(headers, body) {
    try {
      return verifyDynamic(await this.get(), headers, body);
    } catch (error) {
      if (!(error instanceof NotVerified)) throw error;
      return verifyDynamic(await this.get(true), headers, body);
    }
  }
}
