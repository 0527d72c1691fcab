// An HTTPS receiver that offers HTTP/2 and HTTP/1.1 (ALPN): arguments are the files of its certificate
// and key. Prints its port, then one line of JSON per request; ends when its stdin does.
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";

const [, , cert, key] = process.argv;
const options = { cert: readFileSync(cert), key: readFileSync(key), allowHTTP1: true };
const server = createSecureServer(options, async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  response.end();
  const body = Buffer.concat(pieces).toString("base64");
  const { httpVersion: version, headers } = request;
  console.log(JSON.stringify({ version, headers, body, port: request.socket.remotePort }));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
process.stdin.on("end", () => process.exit(0)).resume();
