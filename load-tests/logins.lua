-- Tries to sign on with names that nobody has and a wrong password: `-- COOKIE FORM PAUSE`, where PAUSE is how many
-- milliseconds each connection waits between two attempts, on average. An unknown name costs the edge what a known one does.
-- What comes of them is counted by the edge.
local turn, pause = 0, 0

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
