-- Has wrk print its figures in one line that a program can read; times in milliseconds.
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        "figures requests=%d seconds=%.6f failed=%d p50=%.4f p99=%.4f bytes=%d\n",
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.bytes))
end
