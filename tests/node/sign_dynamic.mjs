// A provider with public keys, made of Node's own crypto. stdin: {key?: private PEM, alg: "v1a" or
// "jwt", kid?, id, timestamp (s), body, claims?}; stdout: {key, jwk, headers} as JSON. Without a key
// a fresh one is made.
import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const { alg, kid, id, timestamp, body } = request;

function freshKey() {
  const options = alg === "jwt" ? { modulusLength: 2048 } : {};
  return generateKeyPairSync(alg === "jwt" ? "rsa" : "ed25519", options).privateKey;
}

const key = request.key ? createPrivateKey(request.key) : freshKey();
const jwk = createPublicKey(key).export({ format: "jwk" });
if (kid) jwk.kid = kid;

const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function jwt() {
  const head = { alg: "RS256", typ: "JWT", ...(kid ? { kid } : {}), ...request.head };
  const claims = {
    iat: timestamp,
    exp: timestamp + 300,
    jti: id,
    body_sha256: createHash("sha256").update(body).digest("hex"),
    ...request.claims,
  };
  const signed = `${encode(head)}.${encode(claims)}`;
  return `${signed}.${sign("sha256", Buffer.from(signed), key).toString("base64url")}`;
}

function v1a() {
  const signed = Buffer.from(`${id}.${timestamp}.${body}`);
  return `v1a,${sign(null, signed, key).toString("base64")}`;
}

const headers = {
  "webhook-id": id,
  "webhook-timestamp": String(timestamp),
  "webhook-signature": alg === "jwt" ? jwt() : v1a(),
};
process.stdout.write(
  JSON.stringify({ key: key.export({ type: "pkcs8", format: "pem" }), jwk, headers }),
);
