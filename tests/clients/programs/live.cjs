// An application whose answers go on, written with Node's own HTTP server: what is posted to `/live/say` is sent at
// once to everybody who listens, as an event (`/live/events`) or a line (`/live/lines`), or answers whoever waits
// (`/live/poll`). `/live/listeners` says how many listen.

const http = require("node:http");

const listeners = new Set();
const unheard = [];
let waiting = [];

function listen(response, type, written) {
  response.writeHead(200, { "Content-Type": type });
  response.flushHeaders();
  const listener = (text) => response.write(written(text));
  listeners.add(listener);
  response.on("close", () => listeners.delete(listener));
}

function poll() {
  while (waiting.length && unheard.length) waiting.shift().end(unheard.shift());
}

async function say(request, response) {
  let text = "";
  for await (const chunk of request) text += chunk;
  for (const listener of listeners) listener(text);
  unheard.push(text);
  poll();
  response.end(String(listeners.size));
}

const server = http.createServer((request, response) => {
  const path = request.url.split("?")[0];
  if (path === "/live/events") {
    listen(response, "text/event-stream", (text) => `data: ${text}\n\n`);
  } else if (path === "/live/lines") {
    listen(response, "text/plain", (text) => `${text}\n`);
  } else if (path === "/live/poll") {
    response.setHeader("Content-Type", "text/plain");
    waiting.push(response);
    poll();
  } else if (path === "/live/say") {
    say(request, response);
  } else if (path === "/live/listeners") {
    response.end(String(listeners.size));
  } else {
    response.setHeader("Content-Type", "text/html");
    response.end('<!doctype html><html lang="en"><title>live</title><link rel="icon" href="data:,"><h1>live</h1>');
  }
});

server.listen(0, "127.0.0.1", () => console.log("listening on", server.address().port));
