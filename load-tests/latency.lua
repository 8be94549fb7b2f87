-- As figures.lua, and each connection pauses between requests: `-- PAUSE`, in milliseconds, on average.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "figures.lua")

local pause = 0

function init(args)
    pause = tonumber(args[1])
end

-- wrk takes whole milliseconds; spread, so that connections do not march in step.
function delay()
    return math.floor(2 * pause * math.random() + 0.5)
end
