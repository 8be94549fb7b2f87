"""An application that says which of its handlers a path leads to, by the router of Flask."""

from flask import Flask
from werkzeug.routing import BaseConverter
from werkzeug.serving import WSGIRequestHandler, make_server


class Rest(BaseConverter):
    """Whatever follows. Flask's own `path` takes no slash first, so that `/open//x` would lead to the last of these rules,
    though it is below `/open` to everybody."""

    part_isolating = False
    regex = ".*?"


application = Flask(__name__)
application.url_map.converters["rest"] = Rest

for name in ("admin", "open"):
    application.add_url_rule(f"/{name}", f"{name} itself", lambda name=name: name)
    application.add_url_rule(f"/{name}/<rest:_>", f"below {name}", lambda _, name=name: name)
application.add_url_rule("/<rest:_>", "others", lambda _: "other")


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
print(f"listening on {server.server_port}", flush=True)
server.serve_forever()
