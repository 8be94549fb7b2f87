-- As figures.lua, with a cookie after the other: `-- FILE`, which holds one Cookie field in each line.
local requests, turn = {}, 0

function init(args)
    for line in io.lines(args[1]) do
        wrk.headers["Cookie"] = line
        table.insert(requests, wrk.format("GET", "/"))
    end
end

function request()
    turn = turn % #requests + 1
    return requests[turn]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        "figures requests=%d seconds=%.6f failed=%d p50=%.4f p99=%.4f bytes=%d\n",
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.bytes))
end
