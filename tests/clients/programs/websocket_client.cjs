// A client of WebSockets, written with `ws`: a conversation through the edge, or `refused STATUS ORIGIN`.

const assert = require("node:assert/strict");
const { randomBytes } = require("node:crypto");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const WebSocket = require("ws");

const { EDGE_HOST: host, EDGE_PORT: port, CA, COOKIE } = process.env;

function dial(origin) {
  return new WebSocket(`wss://${host}:${port}/ws`, {
    ca: readFileSync(CA),
    origin,
    headers: COOKIE ? { Cookie: COOKIE } : {},
    // The address is the edge's, the name is the application's.
    lookup: (_name, options, found) =>
      options.all ? found(null, [{ address: "127.0.0.1", family: 4 }]) : found(null, "127.0.0.1", 4),
  });
}

async function open() {
  const socket = dial(`https://${host}:${port}`);
  await once(socket, "open");
  return socket;
}

async function ask(socket, message) {
  const answer = once(socket, "message");
  socket.send(message);
  const [data, binary] = await answer;
  return binary ? data : data.toString();
}

async function closing(socket, message) {
  const closed = once(socket, "close");
  socket.send(message);
  const [code, reason] = await closed;
  return `${code} ${reason}`;
}

async function converse() {
  let socket = await open();
  assert.equal(await ask(socket, "who"), "ada");
  for (const text of ["", "hello", "grüße, 世界", "x".repeat(1 << 20)]) {
    assert.ok((await ask(socket, text)) === text, `a text of ${text.length}`);
  }
  for (const data of [Buffer.alloc(0), Buffer.from([...Array(256).keys()]), randomBytes(1 << 20)]) {
    assert.ok(data.equals(await ask(socket, data)), `bytes, ${data.length} of them`);
  }
  const pong = once(socket, "pong");
  socket.ping("from the client");
  assert.equal((await pong)[0].toString(), "from the client");
  assert.equal(await ask(socket, "ping me"), "pong heard");
  const closed = once(socket, "close");
  socket.close(4001, "enough said");
  assert.equal((await closed)[0], 4001);

  socket = await open();
  while ((await ask(socket, "last close")) !== "4001 enough said");
  assert.equal(await closing(socket, "close 4002 that is all"), "4002 that is all");
  socket = await open();
  assert.equal(await closing(socket, "close 1000 goodbye"), "1000 goodbye");
}

async function refused(status, origin) {
  const socket = dial(origin || undefined);
  const [, response] = await Promise.race([
    once(socket, "unexpected-response"),
    once(socket, "open").then(() => assert.fail("it was to be refused")),
  ]);
  assert.equal(response.statusCode, status);
  socket.on("error", () => {});
  socket.terminate();
}

const [what, status, origin] = process.argv.slice(2);
const done = what === "refused" ? refused(Number(status), origin) : converse();
done.then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
