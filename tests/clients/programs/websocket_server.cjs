// An application of WebSockets, written with `ws`: sends back what it hears, but for a few commands.

const { WebSocketServer } = require("ws");

let lastClose = "none";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 }, () =>
  console.log("listening on", server.address().port),
);

server.on("connection", (socket, request) => {
  let closedByUs = false;
  socket.on("message", (data, binary) => {
    const text = binary ? "" : data.toString();
    const words = text.split(" ");
    if (words[0] === "close") {
      closedByUs = true;
      socket.close(Number(words[1]), words.slice(2).join(" "));
    } else if (text === "ping me") {
      socket.once("pong", () => socket.send("pong heard"));
      socket.ping("from the application");
    } else if (text === "last close") {
      socket.send(lastClose);
    } else if (text === "who") {
      socket.send(request.headers["x-forwarded-user"] ?? "nobody");
    } else {
      socket.send(data, { binary });
    }
  });
  socket.on("close", (code, reason) => {
    if (!closedByUs) lastClose = `${code} ${reason}`;
  });
});
