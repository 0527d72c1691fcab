// Verifies dynamic webhooks as a receiver does, with nothing but Node: fetches the JWKS and checks
// each request with the key that fits. Reads {"jwks": URL or {"keys"}, "mode": "v1a" or "jwt",
// "requests":[{"headers","body"(base64)}]} and prints {"keys":[...],"cache":..,"verdicts":[...]},
// a verdict being {"kid","claims"} or {"error"}.
import { createHash, createPublicKey, verify } from "node:crypto";

let text = "";
for await (const piece of process.stdin) text += piece;
const { jwks, mode, requests } = JSON.parse(text);

let keys = jwks.keys;
let cache = null;
let type = null;
if (!keys) {
  const response = await fetch(jwks);
  cache = response.headers.get("cache-control");
  type = response.headers.get("content-type");
  keys = (await response.json()).keys;
}

const keyOf = (jwk) => createPublicKey({ key: jwk, format: "jwk" });

// v1a names no key: whoever receives it tries every one.
function verifyV1a({ headers, body }) {
  const signed = Buffer.concat([
    Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`),
    Buffer.from(body, "base64"),
  ]);
  for (const entry of headers["webhook-signature"].split(" ")) {
    const [id, signature] = entry.split(",");
    if (id !== "v1a") continue;
    for (const jwk of keys.filter((k) => k.kty === "OKP" && k.crv === "Ed25519")) {
      if (verify(null, signed, keyOf(jwk), Buffer.from(signature, "base64"))) return { kid: jwk.kid };
    }
  }
  return { error: "no key of the JWKS made this signature" };
}

function verifyJwt({ headers, body }) {
  const parts = headers["webhook-signature"].split(".");
  if (parts.length !== 3) return { error: "not a compact JWT" };
  const json = (part) => JSON.parse(Buffer.from(part, "base64url"));
  const head = json(parts[0]);
  if (head.alg !== "RS256") return { error: `alg is ${head.alg}` };
  const jwk = keys.find((k) => k.kid === head.kid && k.kty === "RSA");
  if (!jwk) return { error: `no RSA key of the JWKS is ${head.kid}` };
  const signed = Buffer.from(`${parts[0]}.${parts[1]}`);
  if (!verify("RSA-SHA256", signed, keyOf(jwk), Buffer.from(parts[2], "base64url"))) {
    return { error: "the signature is wrong" };
  }
  const claims = json(parts[1]);
  const hash = createHash("sha256").update(Buffer.from(body, "base64")).digest("hex");
  if (claims.body_sha256 !== hash) return { error: "it signs another body" };
  return { kid: head.kid, claims };
}

const check = mode === "jwt" ? verifyJwt : verifyV1a;
console.log(JSON.stringify({ keys, cache, type, verdicts: requests.map(check) }));
