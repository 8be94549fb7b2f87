// An application that says which of its handlers a path leads to, by the router of Express.

const express = require("express");

const application = express();
for (const name of ["admin", "open"]) application.use(`/${name}`, (_, response) => response.send(name));
application.use((_, response) => response.send("other"));
// A path that Express cannot decode leads to no handler.
application.use((error, _request, response, _next) => response.status(error.status ?? 500).send("none"));

const server = application.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
