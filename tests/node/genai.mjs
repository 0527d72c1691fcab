// Drives a real @google/genai client, of the version that package.json calls by the argument. Reads
// one JSON request per line and answers each with one line:
//   {"base":URL,"call":"create","args":[...]}     ai.webhooks.create(...args)
//   {"base":URL,"fetch":"/v1/webhooks","body":{}} a bare POST, as it comes without the client
import { createInterface } from "node:readline";

const { GoogleGenAI } = await import(process.argv[2]);
const clients = new Map();

function client(baseUrl) {
  if (!clients.has(baseUrl)) {
    clients.set(baseUrl, new GoogleGenAI({ apiKey: "test-key", httpOptions: { baseUrl } }));
  }
  return clients.get(baseUrl);
}

function plain(value) {
  const { sdkHttpResponse, ...rest } = value ?? {};
  return rest;
}

async function answer({ base, call, args, fetch: path, body }) {
  if (path) {
    const response = await fetch(base + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }
  try {
    return { ok: plain(await client(base).webhooks[call](...args)) };
  } catch (e) {
    const { status, message, error: body } = e;
    return { error: { name: e.constructor.name, status, message, body } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
