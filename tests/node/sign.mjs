// Signs one webhook with the standardwebhooks package. stdin: {secret, id, timestamp (s), body};
// stdout: the three headers as JSON.
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const { secret, id, timestamp, body } = JSON.parse(readFileSync(0, "utf8"));
const signature = new Webhook(secret).sign(id, new Date(timestamp * 1000), body);
process.stdout.write(
  JSON.stringify({
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": signature,
  }),
);
