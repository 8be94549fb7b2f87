-- As figures.lua, and each connection pauses between requests: `-- PAUSE`, in milliseconds, on average.
local pause = 0

function init(args)
    pause = tonumber(args[1])
end

-- wrk takes whole milliseconds; spread, so that connections do not march in step.
function delay()
    return math.floor(2 * pause * math.random() + 0.5)
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        "figures requests=%d seconds=%.6f failed=%d p50=%.4f p99=%.4f bytes=%d\n",
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.bytes))
end
