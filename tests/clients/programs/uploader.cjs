// Uploads of no known length over HTTP/2, written with Node's http2: `uploader.cjs COUNT`. Each body has none, one or
// several pieces, and its end comes in a frame of its own.

const assert = require("node:assert/strict");
const { createHash } = require("node:crypto");
const { readFileSync } = require("node:fs");
const http2 = require("node:http2");

const { EDGE_HOST: host, EDGE_PORT: port, CA, COOKIE } = process.env;

const client = http2.connect(`https://${host}:${port}`, {
  ca: readFileSync(CA),
  // The address is the edge's, the name is the application's.
  lookup: (_name, options, found) =>
    options.all ? found(null, [{ address: "127.0.0.1", family: 4 }]) : found(null, "127.0.0.1", 4),
});

function upload(name, pieces) {
  return new Promise((done, fail) => {
    const request = client.request({ ":method": "POST", ":path": "/bodies", cookie: COOKIE, "x-test": name });
    let answer = "";
    let status;
    request.on("response", (head) => { status = head[":status"]; });
    request.on("data", (chunk) => { answer += chunk; });
    request.on("end", () => done(`${status} ${answer}`));
    request.on("error", fail);
    pieces.forEach((piece) => request.write(piece));
    // Later, so that it does not travel with the last piece.
    setImmediate(() => request.end());
  });
}

async function main() {
  for (let number = 0; number < Number(process.argv[2]); number += 1) {
    const pieces = Array.from({ length: number % 4 }, (_, piece) => `piece ${piece} of ${number}\n`);
    const body = pieces.join("");
    const hash = createHash("sha256").update(body).digest("hex");
    assert.equal(await upload(`node-${number}`, pieces), `200 node-${number} ${body.length} ${hash}`);
  }
  client.close();
}

main();
