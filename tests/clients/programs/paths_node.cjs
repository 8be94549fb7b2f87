// An application that says which of its handlers a path leads to: Node's own HTTP server, whose path is what `new URL`
// makes of the target, as it is usually written.

const http = require("node:http");

function handler(path) {
  const isUnder = (rule) => path === rule || path.startsWith(`${rule}/`);
  return isUnder("/admin") ? "admin" : isUnder("/open") ? "open" : "other";
}

const server = http.createServer((request, response) => {
  let path;
  try {
    path = new URL(request.url, "http://localhost").pathname;
  } catch {
    response.writeHead(400).end("none");
    return;
  }
  response.end(handler(path));
});

server.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
