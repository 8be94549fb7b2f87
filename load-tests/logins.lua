-- Tries to sign on with names that nobody has and a wrong password: `-- COOKIE FORM PAUSE`, where PAUSE is how many
-- milliseconds each connection waits between two attempts, on average. An unknown name costs the edge what a known one does.
local turn, pause = 0, 0
local threads = {}
looked_at, refused = 0, 0

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    wrk.headers["Cookie"], form, pause = args[1], args[2], tonumber(args[3])
end

function delay()
    return math.random(2 * pause)
end

function request()
    turn = turn + 1
    return wrk.format("POST", "/login", nil, form .. "&username=nobody" .. turn % 997 .. "&password=wrong")
end

function response(status)
    if status == 401 then looked_at = looked_at + 1 else refused = refused + 1 end
end

function done(summary)
    local sums = {0, 0}
    for _, thread in ipairs(threads) do
        sums = {sums[1] + thread:get("looked_at"), sums[2] + thread:get("refused")}
    end
    io.write(string.format("figures seconds=%.3f looked_at=%d refused=%d\n", summary.duration / 1e6, sums[1], sums[2]))
end
