// An application that says what it got: the request's `X-Test`, the length of its body, and the body's SHA-256. What
// Node does not take for a request it answers with 400, as it does by default.

const { createHash } = require("node:crypto");
const http = require("node:http");

const server = http.createServer((request, response) => {
  const hash = createHash("sha256");
  let length = 0;
  request.on("data", (chunk) => {
    length += chunk.length;
    hash.update(chunk);
  });
  request.on("end", () => response.end(`${request.headers["x-test"]} ${length} ${hash.digest("hex")}`));
});

server.listen(0, "127.0.0.1", () => console.log("listening on", server.address().port));
