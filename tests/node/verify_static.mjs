// Verifies received webhooks with npm"s standardwebhooks: reads {"secret", "requests":[{"headers",
// "body"(base64)}]} and prints a list with null for each that is right, else the error"s text.
import { Webhook } from "standardwebhooks";

let text = "";
for await (const piece of process.stdin) text += piece;
const { secret, requests } = JSON.parse(text);
const webhook = new Webhook(secret);
console.log(JSON.stringify(requests.map(({ headers, body }) => {
  try {
    webhook.verify(Buffer.from(body, "base64").toString(), headers);
    return null;
  } catch (e) {
    return e.message;
  }
})));
