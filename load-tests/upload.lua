-- As figures.lua, and each request brings a body: `-- BYTES`.
dofile(debug.getinfo(1).source:match("@(.*/)") .. "figures.lua")

function init(args)
    wrk.method, wrk.body = "POST", string.rep("0123456789abcdef", tonumber(args[1]) / 16)
end
