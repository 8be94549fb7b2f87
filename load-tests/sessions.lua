-- As figures.lua, with a cookie after the other: `-- FILE`, which holds one Cookie field in each line.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "figures.lua")

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
